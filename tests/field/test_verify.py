"""Test that `verify` looks at the whole destination and fails without rows, and that `status` lists all scorings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from skinbatch.scoring import unit_scorer
from skinbatch.tables.rows import images_table
from tests.faces import face, png, tar_bytes, write_tree
from tests.field.in_process import command, score


def verify(dest: Path) -> tuple[int, list[str], str]:
    """Return the exit code, the differences, and what people see."""
    code, said, _ = command("verify", str(dest), "--json")
    assert command("verify", str(dest))[0] == code
    return code, json.loads(said)["differences"], command("verify", str(dest))[1]


@pytest.mark.parametrize("named_alike", ["00.png", "s.tar/1.png"])
def test_an_image_id_in_two_units_is_found(
    tmp_path: Path, fake_pack: str, named_alike: str
) -> None:
    members = {f"{n}.png": png(face(n, 1, 50)) for n in range(4)}
    photos = {f"{n:02}.png": png(face(n % 5, n % 3, n)) for n in range(20)}
    tree = write_tree(tmp_path / "photos", {**photos, "s.tar": tar_bytes(members)})

    def renamed(rows: Sequence[Any], classes: Sequence[str], probs: Sequence[str]) -> pa.Table:
        """Run a worker with a defect that gives two photos in different units the same name."""
        table = images_table(rows, classes, probs)
        other = {"00.png": "s.tar/3.png", "s.tar/1.png": "07.png"}[named_alike]
        ids = [
            named_alike if name == other else name for name in table.column("image_id").to_pylist()
        ]
        at = table.schema.get_field_index("image_id")
        return table.set_column(at, table.schema.field("image_id"), pa.array(ids, pa.string()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_scorer, "images_table", renamed)
        score(tree, tmp_path / "out", fake_pack)
    code, differences, shown = verify(tmp_path / "out")
    assert code == 5
    (line,) = [line for line in differences if "more than one row" in line]
    assert line.startswith(f"more than one row: {named_alike} (unit ") and " and " in line
    assert "differences" in shown and "exactly one row" not in shown


def test_a_scoring_whose_listed_photos_are_all_gone_is_not_proved(
    tmp_path: Path, fake_pack: str
) -> None:
    names = [f"photo%20{n}.png" for n in range(6)]
    write_tree(tmp_path / "photos", {f"photo {n}.png": png(face(n % 4, 1, n)) for n in range(6)})
    (tmp_path / "photos/listing.csv").write_text("\n".join(["uri", *names]))
    score(tmp_path / "photos/listing.csv", tmp_path / "out", fake_pack)
    code, differences, shown = verify(tmp_path / "out")
    assert code == 5
    assert "every listed photo has exactly one row" not in shown
    assert any("nothing to prove" in line or "not finished" in line for line in differences)


def test_a_scoring_whose_photos_vanished_later_says_what_was_listed(
    tmp_path: Path, fake_pack: str
) -> None:
    tree = write_tree(tmp_path / "photos", {f"{n}.png": png(face(n % 4, 1, n)) for n in range(6)})
    (tree / "empty.tar").write_bytes(tar_bytes({}))
    assert score(tree, tmp_path / "out", fake_pack).exit_code == 0
    assert verify(tmp_path / "out")[:2] == (0, [])
    for photo in tree.glob("*.png"):
        photo.unlink()
    score(tree, tmp_path / "out", fake_pack)
    code, differences, _ = verify(tmp_path / "out")
    assert code == 5
    (line,) = differences
    assert "there is nothing to prove: not one photo has a row" in line
    assert "listed 6 photos, such as " in line and ".png, and none of them is left" in line


def test_an_archive_file_without_photos_proves_nothing(tmp_path: Path, fake_pack: str) -> None:
    tree = write_tree(tmp_path / "photos", {"notes.tar": tar_bytes({"readme.txt": b"none"})})
    score(tree, tmp_path / "out", fake_pack)
    code, differences, _ = verify(tmp_path / "out")
    assert code == 5
    assert differences == [
        "there is nothing to prove: not one photo has a row; the 1 listed shards hold no photos"
    ]


def test_status_lists_all_scorings(tmp_path: Path, fake_pack: str) -> None:
    tree = write_tree(
        tmp_path / "photos", {f"{n:02}.png": png(face(n % 4, 1, n)) for n in range(40)}
    )
    dest = tmp_path / "out"
    finished = score(tree, dest, fake_pack)
    begun = score(tree, dest, fake_pack, model={"score_floor": 0.2}, run={"limit": 5})
    assert (finished.exit_code, begun.exit_code) == (0, 6)

    listed = json.loads(command("status", str(dest), "--json")[1])["scorings"]
    assert [(s["fingerprint"], s["pack"], s["state"], s["finished"]) for s in listed] == [
        (begun.fingerprint, "fake", "stopped", False),
        (finished.fingerprint, "fake", "done", True),
    ]
    assert (5 <= listed[0]["photos"] < 40, listed[1]["photos"]) == (True, 40)
    assert all(s["created"].startswith("20") for s in listed)

    for scoring in ((), ("--scoring", finished.fingerprint)):
        code, shown, _ = command("status", str(dest), *scoring)
        lines = shown.splitlines()
        assert code == 0
        assert [
            line for line in lines if begun.fingerprint in line and "photos so far, stopped" in line
        ]
        assert [
            line
            for line in lines
            if finished.fingerprint in line and "pack fake, 40 photos, done" in line
        ]
        assert sum(line.endswith("(above)") for line in lines) == 1
