"""Test that `skinbatch verify` sees every way in which its promise can be broken, with exit code 5 and a name."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skinbatch
from skinbatch.cli import main as cli
from skinbatch.config import parse_config
from skinbatch.engines.driver import drive
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import prepare
from skinbatch.errors import UsageError
from skinbatch.scoring import unit_scorer
from skinbatch.tables.rows import images_table
from tests.faces import face, png, tar_bytes, write_tree
from tests.faults.in_process import InProcessEngine


def score(tree: Path, dest: Path, pack: str, **settings: Any) -> None:
    config = parse_config(
        {"pack": pack, "engine": {"name": "local", "cpus_per_worker": 1.0}, **settings}
    )
    run = Run(prepare(str(tree), str(dest), config), SilentPresenter(), "test")
    assert drive(run, InProcessEngine()).exit_code == 0


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    members = {f"{n}.png": png(face(n, 1, 50)) for n in range(4)}
    photos = {f"{n:02}.png": png(face(n % 5, n % 3, n)) for n in range(20)}
    return write_tree(
        tmp_path_factory.mktemp("verified") / "photos", {**photos, "s.tar": tar_bytes(members)}
    )


@pytest.fixture(scope="module")
def scored(tree: Path, fake_pack: str) -> Path:
    score(tree, tree.parent / "out", fake_pack)
    return tree.parent / "out"


@pytest.fixture
def dest(scored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored, tmp_path / "out"))


def verify(dest: Path) -> tuple[int, list[str]]:
    """Return the exit code and the differences of the command itself."""
    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(said),
        pytest.raises(SystemExit) as ended,
    ):
        patch.setattr(sys, "argv", ["skinbatch", "verify", str(dest), "--json"])
        cli.main()
    found: dict[str, Any] = json.loads(said.getvalue())
    assert found["exit_code"] == ended.value.code
    return found["exit_code"], found["differences"]


def files(dest: Path, kind: str) -> list[Path]:
    return sorted((dest / kind).rglob("*.parquet"))


def test_what_was_scored_is_proved(dest: Path) -> None:
    assert verify(dest) == (0, [])


@pytest.mark.parametrize("kind", ["images", "boxes"])
def test_a_deleted_file(dest: Path, kind: str) -> None:
    gone = files(dest, kind)[0]
    gone.unlink()
    code, said = verify(dest)
    assert code == 5
    assert any(gone.name in line and "gone" in line for line in said)


@pytest.mark.parametrize("kind", ["images", "boxes"])
@pytest.mark.parametrize("at", [4, -20, 0.5])
def test_a_changed_byte(dest: Path, kind: str, at: float) -> None:
    changed = files(dest, kind)[-1]
    data = bytearray(changed.read_bytes())
    data[int(at * len(data)) if isinstance(at, float) else at] ^= 1
    changed.write_bytes(data)
    code, said = verify(dest)
    assert code == 5
    assert any(
        changed.name in line and "bytes are not those that were written" in line for line in said
    )


def with_tables(tree: Path, dest: Path, pack: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Run a worker with a defect, whose receipt has the right hash and number of rows for wrong tables."""

    def wrong(rows: Sequence[Any], classes: Sequence[str], probs: Sequence[str]) -> pa.Table:
        return change(images_table(rows, classes, probs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_scorer, "images_table", wrong)
        score(tree, dest, pack)


def named(table: pa.Table, image_id: str) -> pa.Table:
    ids = table.column("image_id").to_pylist()
    return table.slice(ids.index(image_id), 1) if image_id in ids else table.slice(0, 0)


@pytest.mark.parametrize("image_id", ["07.png", "s.tar/2.png"])
def test_a_doubled_row(tree: Path, tmp_path: Path, fake_pack: str, image_id: str) -> None:
    with_tables(
        tree, tmp_path / "out", fake_pack, lambda t: pa.concat_tables([t, named(t, image_id)])
    )
    code, said = verify(tmp_path / "out")
    assert code == 5
    assert any("more than one row" in line and image_id in line for line in said)


def without(table: pa.Table, image_id: str) -> pa.Table:
    return table.filter(pa.array([i != image_id for i in table.column("image_id").to_pylist()]))


def test_a_missing_row(tree: Path, tmp_path: Path, fake_pack: str) -> None:
    with_tables(tree, tmp_path / "out", fake_pack, lambda t: without(t, "07.png"))
    code, said = verify(tmp_path / "out")
    assert code == 5
    assert any("planned but without a row: 07.png" in line for line in said)


def test_a_missing_row_of_an_archive_file(tree: Path, tmp_path: Path, fake_pack: str) -> None:
    with_tables(tree, tmp_path / "out", fake_pack, lambda t: without(t, "s.tar/2.png"))
    code, said = verify(tmp_path / "out")
    assert code == 5
    assert any("3 rows of s.tar, but its receipt records 4" in line for line in said)


@pytest.mark.parametrize("name", ["copy.parquet", "notes.txt", "gx.0123456789ab.parquet"])
@pytest.mark.parametrize("kind", ["images", "boxes"])
def test_a_foreign_file_beside_the_tables(dest: Path, kind: str, name: str) -> None:
    foreign = files(dest, kind)[0].with_name(name)
    foreign.write_bytes(files(dest, kind)[0].read_bytes())
    code, said = verify(dest)
    assert code == 5
    assert any(name in line for line in said)


def test_a_foreign_file_among_the_receipts(dest: Path) -> None:
    receipts = next((dest / "_skinbatch/receipts").iterdir())
    (receipts / "stray.json").write_text("{}")
    code, said = verify(dest)
    assert code == 5
    assert any("stray.json" in line for line in said)


@pytest.mark.parametrize(
    "place",
    [
        *(
            "images/copy.parquet",
            "images/scoring=000000000000/copy.parquet",
            "boxes/scoring=0/a/b.txt",
        ),
        *("masks/copy.parquet", "masks/scoring=000000000000/copy.parquet"),
        *("_skinbatch/plans/{}/copy/units.parquet", "_skinbatch/snapshots/{}/copy.parquet"),
        "_skinbatch/folds/{}/copy.parquet",
    ],
)
def test_a_foreign_file_beside_what_is_ours(dest: Path, place: str) -> None:
    (scoring,) = (dest / "_skinbatch/scorings").iterdir()
    foreign = dest / place.format(scoring.stem)
    foreign.parent.mkdir(parents=True, exist_ok=True)
    foreign.write_bytes(files(dest, "images")[0].read_bytes())
    code, said = verify(dest)
    assert code == 5
    assert any(foreign.name in line and line.endswith("move them elsewhere") for line in said)
    foreign.unlink()
    assert verify(dest) == (0, [])


def test_the_tables_of_another_scoring_are_not_foreign(
    tree: Path, dest: Path, fake_pack: str
) -> None:
    score(tree, dest, fake_pack, model={"score_floor": 0.2}, run={"save_masks": True})
    assert {
        path.name.partition("=")[0]
        for path in dest.glob("*/*")
        if path.parent.name in ("images", "masks")
    } == {"scoring"}
    scorings = sorted((dest / "_skinbatch/scorings").iterdir())
    assert len(scorings) == 2
    for path in scorings:
        report = skinbatch.verify(dest, path.stem)
        assert (report.fingerprint, report.differences) == (path.stem, [])


@pytest.mark.parametrize("wrong", [b"{", b"", b"\xff", b"null", b"[]", b"{}", b"other"], ids=str)
@pytest.mark.parametrize("of_the_other", [False, True])
def test_a_damaged_scoring(
    tree: Path, dest: Path, fake_pack: str, wrong: bytes, of_the_other: bool
) -> None:
    (scoring,) = (dest / "_skinbatch/scorings").iterdir()
    if of_the_other:
        scoring = scoring.with_name("000000000000.json")
    if wrong == b"other":
        wrong = (
            next((dest / "_skinbatch/scorings").iterdir())
            .read_bytes()
            .replace(b'"fingerprint": "', b'"fingerprint": "0')
        )
    scoring.write_bytes(wrong)
    code, said = verify(dest)
    assert (code, len(said)) == (5, 1)
    assert f"{scoring.name} is damaged" in said[0]


@pytest.mark.parametrize("of", ["a snapshot", "a fold"])
@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data.replace(b'"host":"', b'"host":"x')]
)
def test_a_damaged_receipt_of_which_there_is_a_copy(
    tree: Path, dest: Path, fake_pack: str, of: str, damage: Callable[[bytes], bytes]
) -> None:
    receipt = sorted((dest / "_skinbatch/receipts").rglob("*.json"))[0]
    if of == "a fold":
        (snapshot,) = (dest / "_skinbatch/snapshots").rglob("*.parquet")
        fold = dest / "_skinbatch/folds" / snapshot.parent.name / snapshot.name
        fold.parent.mkdir(parents=True)
        snapshot.rename(fold)
    receipt.write_bytes(damage(receipt.read_bytes()))
    code, said = verify(dest)
    assert code == 5
    assert any(
        f"{receipt.parent.name}/{receipt.name}: not what was written" in line for line in said
    )
    receipt.unlink()  # the way out that the message names
    score(tree, dest, fake_pack)
    assert verify(dest) == (0, [])


@pytest.mark.parametrize("column", ["unit_id", "receipt", "rows", "files", "record"])
def test_a_changed_byte_of_a_snapshot_is_named_and_the_next_run_writes_another(
    tree: Path, dest: Path, fake_pack: str, column: str
) -> None:
    (path,) = (dest / "_skinbatch/snapshots").rglob("*.parquet")
    group = pq.read_metadata(path).row_group(0)
    chunk = next(
        c
        for c in map(group.column, range(group.num_columns))
        if c.path_in_schema.startswith(column)
    )
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 1
    path.write_bytes(data)
    code, said = verify(dest)
    assert code == 5
    assert any(path.stem in line and "does not count" in line for line in said)
    before = {path.name for path in files(dest, "images")}
    score(tree, dest, fake_pack)
    assert {path.name for path in files(dest, "images")} == before
    assert verify(dest) == (0, [])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0xFF
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    "flipped": flip,
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["units.parquet", "members-00000.parquet"])
def test_a_damaged_plan_is_named_and_the_next_run_plans_anew_and_scores_nothing_twice(
    tree: Path, dest: Path, fake_pack: str, damage: str, name: str
) -> None:
    (path,) = dest.glob(f"_skinbatch/plans/*/*/{name}")
    DAMAGES[damage](path)
    code, said = verify(dest)
    assert code == 5
    if (damage, name) == ("flipped", "members-00000.parquet"):
        assert any(name in line and "damaged" in line for line in said)
        path.unlink()  # the way out that the message names
    before = {path.name for path in files(dest, "images")}
    score(tree, dest, fake_pack)
    assert {path.name for path in files(dest, "images")} == before
    assert verify(dest) == (0, [])


def test_a_plan_whose_footer_says_no_sizes_is_named_and_planned_anew(
    tree: Path, dest: Path, fake_pack: str
) -> None:
    (path,) = dest.glob("_skinbatch/plans/*/*/units.parquet")
    path.write_bytes(path.read_bytes().replace(b'{"members-', b'["members-'))
    code, said = verify(dest)
    assert (code, len(said)) == (5, 1)
    assert path.name in said[0] and "damaged" in said[0]
    score(tree, dest, fake_pack)
    assert verify(dest) == (0, [])


DEST = b'{"layout_version": 1, "schema_version": 1, "source": "/x", "bits": 3}'
WRONG = [
    *(
        b"{",
        b"[]",
        b"null",
        b"[" * 200_000,
        DEST.replace(b"source", b"sOurce"),
        DEST.replace(b'"/x"', b"7"),
    ),
    *(DEST.replace(b"3}", b'"3"}'), DEST.replace(b"3}", b"-1}")),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong[:80]))
def test_a_damaged_dest_json_is_wrong_use_and_no_defect(
    tree: Path, dest: Path, fake_pack: str, wrong: bytes
) -> None:
    path = dest / "_skinbatch/dest.json"
    path.write_bytes(wrong)
    with pytest.raises(UsageError, match=r"dest\.json is damaged"):
        skinbatch.verify(dest)
    with pytest.raises(UsageError, match=r"dest\.json is damaged"):
        skinbatch.score(tree, dest, pack=fake_pack, engine="local")
    assert path.read_bytes() == wrong


def test_rows_of_other_statuses_than_their_receipt_says(
    tree: Path, tmp_path: Path, fake_pack: str
) -> None:
    score(tree, tmp_path / "out", fake_pack)
    for path in (tmp_path / "out/_skinbatch").rglob("*"):
        if path.is_file() and b'"ok"' in path.read_bytes():
            path.write_bytes(path.read_bytes().replace(b'"ok": ', b'"ok": 1'))
    for path in (tmp_path / "out/_skinbatch/snapshots").rglob("*.parquet"):
        table = pq.read_table(path)
        records = [
            r.replace('"ok": ', '"ok": 1').replace('"ok":', '"ok":1')
            for r in table["record"].to_pylist()
        ]
        column = table.schema.get_field_index("record")
        pq.write_table(
            table.set_column(column, table.schema.field("record"), pa.array(records)), path
        )
    code, said = verify(tmp_path / "out")
    assert code == 5
    assert any("its receipts record" in line for line in said)
