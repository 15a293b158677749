"""Test that scoring chosen rows again leaves every other row as it is, also if the run is killed."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest

import skinbatch
from skinbatch.config import parse_config
from skinbatch.engines.chosen_rows import RowRequest
from skinbatch.engines.driver import drive
from skinbatch.engines.presenter import RunProgress, SilentPresenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import prepare, prepare_again
from skinbatch.errors import UsageError
from skinbatch.runs.run_report import RunReport
from tests.faces import comparable, face, files_of, png, tar_bytes, write_tree
from tests.faults.in_process import InProcessEngine, bury_claim, decodes, killed_at
from tests.field.in_process import command, score

# No face has as many pixels, so whatever is scored again with this setting becomes `too_large`.
TIGHT = {"decode": {"max_pixels": 100}}
CHOSEN = {"03.png", "11.png", "s.tar/b.png", "broken.tar/a.png"}


def zip_bytes(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Score loose photos and shards, some of which fail, and return the destination."""
    folder = tmp_path_factory.mktemp("chosen")
    members = {f"{name}.png": png(face(n, 1, 40 + n)) for n, name in enumerate("abc")}
    # Two members with the same bytes, and one without any.
    twins = members | {"twin.png": members["b.png"], "empty.png": b""}
    whole = tar_bytes(members)
    write_tree(
        folder / "photos",
        {
            **{f"{n:02}.png": png(face(n % 6, n % 4, n)) for n in range(24)},
            "empty.png": b"",
            "s.tar": tar_bytes(twins),
            "broken.tar": whole[: whole.index(members["c.png"]) + 100],
            "z.zip": zip_bytes(members),
        },
    )
    report = score(folder / "photos", folder / "out", fake_pack, run={"max_failures": 1.0})
    assert report.exit_code == 0
    assert report.statuses["truncated"] >= 1 and report.statuses["empty"] == 2
    return folder / "out"


def again(dest: Path, request: RowRequest, pack: str, **settings: object) -> RunReport:
    config = parse_config({"pack": pack, "run": {"max_failures": 1.0}, **settings})
    prepared = prepare_again(str(dest), config, pack_named=True)
    return drive(
        Run(prepared, SilentPresenter(), "test"), InProcessEngine(), retrying=True, request=request
    )


def without(tables: tuple[pa.Table, pa.Table], image_ids: set[str]) -> tuple[pa.Table, ...]:
    """Return the tables without the rows of some photos."""
    return tuple(
        table.filter(pa.array([i not in image_ids for i in table.column("image_id").to_pylist()]))
        for table in tables
    )


def same(ours: tuple[pa.Table, ...], theirs: tuple[pa.Table, ...]) -> bool:
    return all(a.equals(b) for a, b in zip(ours, theirs, strict=True))


def test_only_the_named_rows_are_scored_again(scored: Path, fake_pack: str, tmp_path: Path) -> None:
    dest = Path(shutil.copytree(scored, tmp_path / "out"))
    before = comparable(dest)
    with decodes() as decoded:
        report = again(dest, RowRequest(image_ids=frozenset(CHOSEN)), fake_pack, **TIGHT)
    assert (report.exit_code, report.scored) == (0, len(CHOSEN))
    assert decoded == CHOSEN

    after = comparable(dest)
    rows = {row["image_id"]: row["status"] for row in after[0].to_pylist()}
    assert {name for name, status in rows.items() if status == "too_large"} == CHOSEN
    assert same(without(after, CHOSEN), without(before, CHOSEN))
    assert skinbatch.verify(dest).differences == []


def test_rows_are_chosen_by_a_condition_and_by_name_together(
    scored: Path, fake_pack: str, tmp_path: Path
) -> None:
    dest = Path(shutil.copytree(scored, tmp_path / "out"))
    images = comparable(dest)[0].to_pylist()
    many = {row["image_id"] for row in images if (row["count_total"] or 0) > 5}
    assert many and "00.png" not in many

    request = RowRequest("count_total > 5", frozenset({*sorted(many)[:2], "00.png"}))
    with decodes() as decoded:
        assert again(dest, request, fake_pack).scored == 2
    assert decoded == set(sorted(many)[:2])

    with decodes() as decoded:
        assert again(dest, RowRequest("status <> 'ok'"), fake_pack).exit_code == 0
    assert all(row["status"] != "ok" for row in images if row["image_id"] in decoded)
    assert same(comparable(dest), comparable(scored))


def test_a_killed_run_keeps_all_rows_and_the_same_command_scores_what_is_left(
    scored: Path, fake_pack: str, tmp_path: Path
) -> None:
    """Kill a run after its first write or delete, then after its second, and so on to the end."""
    before = comparable(scored)
    request = RowRequest(image_ids=frozenset(CHOSEN))
    for step in count(1):
        dest = Path(shutil.copytree(scored, tmp_path / str(step)))
        finished = False
        with decodes() as at_first, killed_at(step, landed=True):
            again(dest, request, fake_pack, **TIGHT)
            finished = True
        if finished:
            break

        bury_claim(dest)
        assert same(without(comparable(dest), CHOSEN), without(before, CHOSEN))
        newest = skinbatch.open(dest).snapshot
        with decodes() as later:
            report = again(dest, request, fake_pack, **TIGHT)
        assert report.exit_code == 0
        assert at_first | later == CHOSEN
        # What a killed run has committed is scored again only after the snapshot names it.
        if newest == skinbatch.open(scored).snapshot:
            assert len(at_first & later) <= 2, "more than the unit that was under way"

        after = comparable(dest)
        ids = [table.column("image_id").to_pylist() for table in (after[0], before[0])]
        assert ids[0] == ids[1]
        assert same(without(after, CHOSEN), without(before, CHOSEN))
        assert skinbatch.verify(dest).differences == []
        shutil.rmtree(dest)
    assert step > 20


@contextmanager
def touched(shard: Path) -> Iterator[None]:
    """Give a shard a later modification time, which makes another version with the same members."""
    before = shard.stat().st_mtime_ns
    os.utime(shard, ns=(before, before + 10**9))
    try:
        yield
    finally:
        os.utime(shard, ns=(before, before))


def test_other_members_of_a_shard_that_was_touched_are_copied(
    scored: Path, fake_pack: str, tmp_path: Path
) -> None:
    dest = Path(shutil.copytree(scored, tmp_path / "out"))
    with touched(scored.parent / "photos" / "s.tar"), decodes() as decoded:
        request = RowRequest(image_ids=frozenset({"s.tar/b.png"}))
        report = again(dest, request, fake_pack, **TIGHT)

    assert (report.exit_code, decoded) == (0, {"s.tar/b.png"})
    rows = {row["image_id"]: row["status"] for row in comparable(dest)[0].to_pylist()}
    assert [rows[f"s.tar/{name}.png"] for name in ("a", "b", "twin")] == ["ok", "too_large", "ok"]
    assert skinbatch.verify(dest).differences == []


def test_a_plain_retry_scores_the_failed_members_of_a_shard_that_was_touched(
    fake_pack: str, tmp_path: Path
) -> None:
    members = {"a.png": png(face(1, 1)), "b.png": png(face(2, 2))}
    source = write_tree(tmp_path / "photos", {"s.tar": tar_bytes(members)})
    dest = tmp_path / "out"
    failed = score(source, dest, fake_pack, run={"max_failures": 1.0}, **TIGHT)
    assert failed.statuses == {"too_large": 2}

    with touched(source / "s.tar"):
        config = parse_config({"pack": fake_pack})
        prepared = prepare_again(str(dest), config, pack_named=True)
        report = drive(Run(prepared, SilentPresenter(), "test"), InProcessEngine(), retrying=True)
        assert (report.exit_code, report.statuses) == (0, {"ok": 2})


def test_a_limit_ends_a_retry_with_6_and_the_same_command_goes_on(
    scored: Path, fake_pack: str, tmp_path: Path
) -> None:
    dest = Path(shutil.copytree(scored, tmp_path / "out"))
    request = RowRequest(image_ids=frozenset(CHOSEN))
    limited = {"run": {"max_failures": 1.0, "limit": 1}}
    first = again(dest, request, fake_pack, **TIGHT, **limited)
    assert first.exit_code == 6
    assert 0 < first.scored < len(CHOSEN)
    assert first.units_left > 0

    rest = again(dest, request, fake_pack, **TIGHT)
    assert (rest.exit_code, first.scored + rest.scored) == (0, len(CHOSEN))
    assert skinbatch.verify(dest).differences == []


def test_a_limit_ends_a_plain_retry_with_6_too(
    scored: Path, fake_pack: str, tmp_path: Path
) -> None:
    dest = Path(shutil.copytree(scored, tmp_path / "out"))
    config = parse_config({"pack": fake_pack, "run": {"max_failures": 1.0, "limit": 1}})
    prepared = prepare_again(str(dest), config, pack_named=True)
    report = drive(Run(prepared, SilentPresenter(), "test"), InProcessEngine(), retrying=True)
    assert report.exit_code == 6
    assert report.units_left > 0
    assert same(comparable(dest), comparable(scored))


def test_a_unit_that_kills_its_worker_is_halved_and_keeps_its_other_rows(
    scored: Path, fake_pack: str, tmp_path: Path
) -> None:
    dest = Path(shutil.copytree(scored, tmp_path / "out"))
    config = parse_config({"pack": fake_pack, "run": {"max_failures": 1.0}, **TIGHT})
    run = Run(prepare_again(str(dest), config, pack_named=True), SilentPresenter(), "test")
    engine = InProcessEngine(deaths={1, 2, 3})
    request = RowRequest(image_ids=frozenset(CHOSEN))
    report = drive(run, engine, retrying=True, request=request)
    assert (report.exit_code, report.scored) == (0, len(CHOSEN))
    assert same(without(comparable(dest), CHOSEN), without(comparable(scored), CHOSEN))
    assert skinbatch.verify(dest).differences == []


class Shown(SilentPresenter):
    """Keep the progress that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[RunProgress] = []

    def progress(self, progress: RunProgress) -> None:
        self.seen.append(progress)


def test_the_halves_of_a_unit_count_as_units_in_a_retry(fake_pack: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "photos", {f"{n}.png": png(face(n, 1)) for n in range(4)})
    config = parse_config({"pack": fake_pack})
    prepared = prepare(str(source), str(tmp_path / "out"), config)
    halving = InProcessEngine(deaths={1, 2})
    assert drive(Run(prepared, SilentPresenter(), "test"), halving).exit_code == 0

    shown = Shown()
    prepared = prepare_again(str(tmp_path / "out"), config, pack_named=True)
    report = drive(
        Run(prepared, shown, "test"), InProcessEngine(), True, RowRequest("status = 'ok'")
    )
    assert (report.exit_code, report.scored) == (0, 4)
    units = {seen.units_total for seen in shown.seen}
    assert len(units) == 1 and min(seen.units_done for seen in shown.seen) == 0
    assert shown.seen[-1].units_done == shown.seen[-1].units_total


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (RowRequest("grad = 'severe'"), r"no column 'grad'; similar: grade"),
        (RowRequest('status = "timeout"'), r"texts are in single quotes: 'timeout'"),
        (RowRequest("status = "), r"--where status = : .*syntax error"),
        (RowRequest("meta_site = 'x'"), r"no photo has 'meta_site'"),
        (RowRequest(image_ids=frozenset({"99.png", "00.png"})), r"1 of 2 image_ids .*: 99\.png;"),
        (RowRequest(image_ids=frozenset({"s.tar/q.png"})), r"s\.tar/q\.png; write them as in"),
    ],
)
def test_what_does_not_exist_is_named_and_nothing_is_touched(
    scored: Path, fake_pack: str, request_: RowRequest, message: str
) -> None:
    before = files_of(scored)
    with pytest.raises(UsageError, match=message):
        again(scored, request_, fake_pack)
    assert files_of(scored) == before


def test_nothing_is_done_if_no_row_fits(scored: Path, fake_pack: str) -> None:
    report = again(scored, RowRequest("status = 'timeout'"), fake_pack)
    assert (report.exit_code, report.nothing_to_do, report.scored) == (0, True, 0)
    assert report.message.startswith("nothing to do: none of ")
    assert report.message.endswith(" rows fits --where status = 'timeout'")


def test_the_command_tells_what_it_did_and_what_is_wrong(
    scored: Path, fake_pack: str, tmp_path: Path
) -> None:
    code, out, _ = command("retry", str(scored), "--where", "status = 'timeout'")
    assert code == 3  # as after every run: it judges all rows
    assert out.startswith(
        "Nothing to do: none of 36 rows fits --where status = 'timeout', but 3 of 36"
    )

    names = tmp_path / "names.txt"
    names.write_text("00.png\nnowhere.png\n")
    code, _, err = command("retry", str(scored), "--ids", str(names))
    assert code == 2
    assert "1 of 2 image_ids have no row in" in err and "nowhere.png" in err

    code, _, err = command("retry", str(scored), "--where", "gradus > 1")
    assert (code, "`images` has no column 'gradus'" in err) == (2, True)
