"""Photos are paired by the strictest name that fits, and never guessed at."""

from __future__ import annotations

from skinbatch.evaluate.pairing import pair


def test_whole_names_come_first_and_the_rest_is_named() -> None:
    pairs = pair(["a/1.jpg", "a/2.jpg", "b/3.jpg"], ["a/1.jpg", "a/2.jpg", "c/3.jpg"])
    assert pairs.way == "name"
    assert (pairs.truth.tolist(), pairs.rows.tolist()) == ([0, 1], [0, 1])
    # b/3.jpg is not c/3.jpg: where whole names fit, a base name is no proof.
    assert (pairs.unseen, pairs.unsaid, pairs.ambiguous) == (("b/3.jpg",), ("c/3.jpg",), ())


def test_base_names_are_next() -> None:
    pairs = pair(["2.jpg", "1.jpg"], ["train.tar/x/1.jpg", "train.tar/x/2.jpg", "train.tar/x/4.jpg"])
    assert (pairs.way, pairs.truth.tolist(), pairs.rows.tolist()) == ("base name", [1, 0], [0, 1])
    assert pairs.unsaid == ("train.tar/x/4.jpg",)


def test_then_base_names_without_their_ending() -> None:
    pairs = pair(["masks/7.png"], ["7.jpg"])
    assert (pairs.way, pairs.truth.tolist(), pairs.rows.tolist()) == ("base name without its ending", [0], [0])


def test_a_name_that_fits_twice_is_in_no_pair() -> None:
    pairs = pair(["1.jpg", "2.jpg", "x/2.jpg", "3.jpg"], ["a/1.jpg", "b/1.jpg", "a/2.jpg", "a/3.jpg"])
    assert (pairs.truth.tolist(), pairs.rows.tolist()) == ([3], [3])
    assert pairs.ambiguous == ("1.jpg", "2.jpg", "x/2.jpg")
    assert (pairs.unseen, pairs.unsaid) == ((), ())


def test_nothing_fits() -> None:
    pairs = pair(["1.jpg"], ["2.jpg"])
    assert (pairs.way, len(pairs.rows), pairs.unseen, pairs.unsaid) == (None, 0, ("1.jpg",), ("2.jpg",))


def test_names_that_tables_had_to_write_out_are_found() -> None:
    name = b"caf\xff.jpg".decode("utf-8", "surrogateescape")
    assert pair([name], ["caf\\x{ff}.jpg"]).way == "name"
