"""Test that `skinbatch plan` counts, measures a sample, and leaves no trace in the destination."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skinbatch.cli.plan import lines_of
from skinbatch.engines.forecast import Forecast, Range, forecast, per_photo_range
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.rehearsal import Measured
from skinbatch.errors import UsageError
from tests.faces import face, files_of, png, tar_bytes, write_tree
from tests.field.in_process import command, score

PRICES = {"currency": "EUR", "cpu_worker_hour": 36.0, "thousand_puts": 1.0}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    members = {f"{n:02}.png": png(face(n % 5, 2, 40 + n)) for n in range(20)}
    loose = {f"{n:02}.png": png(face(n % 6, 1, n)) for n in range(40)}
    return write_tree(tmp_path / "photos", {**loose, "empty.png": b"", "s.tar": tar_bytes(members)})


def plan(tree: Path, dest: Path, pack: str, **how: object) -> Forecast:
    return forecast(tree, dest, pack=pack, engine="local", presenter=SilentPresenter(), **how)  # type: ignore[arg-type]


def test_a_new_destination_is_counted_and_sampled_and_not_made(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    found = plan(tree, tmp_path / "out", fake_pack, sample=30, workers=4)
    assert (found.loose, found.shards, found.scored) == (41, 1, 0)
    assert found.photos == found.left == 61
    assert found.bytes == sum(path.stat().st_size for path in tree.iterdir())
    assert not (tmp_path / "out").exists()

    assert found.sample is not None and found.seconds is not None and found.cost is not None
    assert 25 <= found.sample.photos <= 40
    assert (found.sample.workers, found.sample.resource, found.workers) == (1, "cpu", 4)
    each = found.sample.worker_seconds
    assert each.low is not None and each.high is not None
    assert 0 <= each.low <= each.value <= each.high
    # The tar is one unit of 20 photos, which one worker scores when the others have ended.
    assert found.cost.worker_seconds["cpu"] == pytest.approx(61 * each.value, abs=0.01)
    assert found.seconds.value >= 20 * each.value
    assert found.money is None
    assert any("4 workers is as fast as the 1 of the sample" in note for note in found.notes)


def test_what_is_scored_already_is_not_counted_again(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    dest = tmp_path / "out"
    assert score(tree, dest, fake_pack, run={"max_failures": 0.1}).rows == 61
    before = files_of(dest)
    done = plan(tree, dest, fake_pack)
    assert (done.photos, done.scored, done.left, done.sample) == (61, 61, 0, None)

    write_tree(tree, {"new.png": png(face(3, 3)), "00.png": png(face(6, 6, 99))})
    found = plan(tree, dest, fake_pack, sample=0)
    assert (found.photos, found.scored, found.left, found.sample) == (62, 60, 2, None)
    sampled = plan(tree, dest, fake_pack, sample=10)
    assert sampled.sample is not None and sampled.sample.photos == 2
    assert files_of(dest) == before
    assert not list(dest.rglob(".tmp-*"))


def test_a_run_that_was_stopped_has_its_open_units_left(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    dest = tmp_path / "out"
    stopped = score(tree, dest, fake_pack, run={"limit": 1})
    found = plan(tree, dest, fake_pack, sample=0)
    assert (stopped.exit_code, found.scored) == (6, stopped.rows)
    assert found.left == 61 - stopped.rows


def test_the_command_shows_time_and_money(tree: Path, fake_pack: str, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("[prices]\n" + "\n".join(f"{k} = {v!r}" for k, v in PRICES.items()))
    arguments = ("plan", str(tree), str(tmp_path / "out"), "--pack", fake_pack, "--engine", "local")
    code, out, _ = command(*arguments, "--sample", "24", "--config", str(prices))
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["about"].endswith("61 photos are to be scored")
    assert lines["photos"].endswith(" 41 loose, 1 shard")
    assert lines["time"].endswith(") with 1 worker")
    assert "photos per worker-hour, " in lines["cost"] and " EUR (" in lines["cost"]
    assert "95 % interval" in out

    code, out, _ = command(*arguments, "--sample", "0", "--json")
    assert (code, json.loads(out)["left"]) == (0, 61)


def test_mistakes_are_those_of_score(tree: Path, fake_pack: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        plan(tmp_path / "nowhere", tmp_path / "out", fake_pack)
    dest = tmp_path / "out"
    assert score(tree, dest, fake_pack).exit_code in (0, 3)
    other = write_tree(tmp_path / "other", {"a.png": png(face())})
    with pytest.raises(UsageError, match="a destination has one source"):
        plan(other, dest, fake_pack)


def test_the_interval_narrows_as_parts_agree() -> None:
    alike = per_photo_range([Measured(10, 0, 2.0, "cpu")] * 8)
    assert alike.low == pytest.approx(0.2)
    assert alike.high == pytest.approx(0.2)

    # A textbook ratio estimate: mean 0.2, residuals of 1 s over 20 photos, t(1) = 12.706.
    wide = per_photo_range([Measured(10, 0, 1.0, "cpu"), Measured(10, 0, 3.0, "cpu")])
    assert wide.high == pytest.approx(0.2 + 12.706 * (2 * 2) ** 0.5 / 20, rel=1e-3)
    assert wide.low == 0.0
    assert per_photo_range([Measured(3, 0, 1.5, "gpu")]) == Range(0.5)


def test_estimates_are_shown_as_such() -> None:
    found = Forecast("a", "b", "f" * 12, 1000, 10**9, 0, 3, False, 0, 1000, 10**9)
    assert lines_of(found)[0] == "about 1,000 of about 1,000 photos are to be scored"
