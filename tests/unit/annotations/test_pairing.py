"""Test that photos are paired by the strictest name that fits, and never by a guess."""

from __future__ import annotations

from pathlib import Path

from skinbatch.annotations.pairing import pair
from skinbatch.storage.local import LocalStore
from skinbatch.tables.names import safe_text


def test_whole_names_come_first_and_the_rest_is_named() -> None:
    pairs = pair(["a/1.jpg", "a/2.jpg", "b/3.jpg"], ["a/1.jpg", "a/2.jpg", "c/3.jpg"])
    assert pairs.way == "name"
    assert (pairs.truth.tolist(), pairs.rows.tolist()) == ([0, 1], [0, 1])
    # b/3.jpg is not c/3.jpg: if whole names fit, a base name is not enough.
    assert (pairs.unseen, pairs.unsaid, pairs.ambiguous) == (("b/3.jpg",), ("c/3.jpg",), ())


def test_base_names_are_next() -> None:
    pairs = pair(
        ["2.jpg", "1.jpg"], ["train.tar/x/1.jpg", "train.tar/x/2.jpg", "train.tar/x/4.jpg"]
    )
    assert (pairs.way, pairs.truth.tolist(), pairs.rows.tolist()) == ("base name", [1, 0], [0, 1])
    assert pairs.unsaid == ("train.tar/x/4.jpg",)


def test_then_base_names_without_their_ending() -> None:
    pairs = pair(["masks/7.png"], ["7.jpg"])
    assert (pairs.way, pairs.truth.tolist(), pairs.rows.tolist()) == (
        "base name without its ending",
        [0],
        [0],
    )


def test_a_name_that_fits_twice_is_in_no_pair() -> None:
    pairs = pair(
        ["1.jpg", "2.jpg", "x/2.jpg", "3.jpg"], ["a/1.jpg", "b/1.jpg", "a/2.jpg", "a/3.jpg"]
    )
    assert (pairs.truth.tolist(), pairs.rows.tolist()) == ([3], [3])
    assert pairs.ambiguous == ("1.jpg", "2.jpg", "x/2.jpg")
    assert (pairs.unseen, pairs.unsaid) == ((), ())


def test_nothing_fits() -> None:
    pairs = pair(["1.jpg"], ["2.jpg"])
    assert (pairs.way, len(pairs.rows), pairs.unseen, pairs.unsaid) == (
        None,
        0,
        ("1.jpg",),
        ("2.jpg",),
    )


def test_names_that_tables_had_to_write_out_are_found() -> None:
    name = b"caf\xff.jpg".decode("utf-8", "surrogateescape")
    assert pair([name], ["caf\\x{ff}.jpg"]).way == "name"


def test_photos_that_were_scored_are_found_by_their_files_and_then_none_by_a_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    files = [tmp_path / "link" / "1.jpg", tmp_path / "link" / "2.jpg", None]
    uris = [
        f"{tmp_path}/b/1.jpg",
        f"{tmp_path}/b/2.jpg",
        f"{tmp_path}/b/../a/2.jpg",
        f"s3:/{tmp_path}/a/1.jpg",
    ]
    pairs = pair(
        ["1.jpg", "2.jpg", "3.jpg"], ["b/1.jpg", "b/2.jpg", "a/2.jpg", "3.jpg"], files, uris
    )
    assert (pairs.way, pairs.truth.tolist(), pairs.rows.tolist()) == ("file", [1], [2])
    assert (pairs.unseen, pairs.unsaid) == (("1.jpg", "3.jpg"), ("b/1.jpg", "b/2.jpg", "3.jpg"))
    # If the files are not the scored ones, such as copies, names decide.
    assert pair(["1.jpg", "2.jpg"], ["1.jpg", "2.jpg"], files[:2], uris[:2]).way == "name"


def test_a_file_that_is_a_link_or_whose_name_tables_had_to_write_out_is_found(
    tmp_path: Path,
) -> None:
    odd = tmp_path / b"caf\xff.jpg".decode("utf-8", "surrogateescape")
    odd.touch()
    (tmp_path / "link.jpg").symlink_to(odd)
    (info,) = [info for info in LocalStore(tmp_path).list() if info.key != "link.jpg"]
    uri = safe_text(LocalStore(tmp_path).uri_of(info.key))
    assert pair(["x"], ["y"], [odd], [uri]).way == "file"
    assert pair(["x"], ["y"], [tmp_path / "link.jpg"], [uri]).way == "file"
    assert pair(["x"], ["y"], [odd], [safe_text(str(odd))]).way == "file", "as a listing writes it"
