"""Test that a recipe that trains on photos of its own evaluation is refused, whatever their names are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from skinbatch.errors import UsageError
from skinbatch.train.fitting.progress import SilentProgress
from skinbatch.train.session import train
from tests.unit.train.detection.spotted import write_spotted


def refused(recipe: Path) -> str:
    with pytest.raises(UsageError) as error:
        train("detector", recipe, recipe.parent / "out", SilentProgress())
    return str(error.value)


def with_line(recipe: Path, old: str, new: str) -> Path:
    text = recipe.read_text(encoding="utf-8")
    assert old in text
    recipe.write_text(text.replace(old, new), encoding="utf-8")
    return recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_spotted(tmp_path, photos=8, clear=2)


def test_the_evaluation_part_as_a_source_of_training(recipe: Path) -> None:
    message = refused(
        with_line(recipe, '[{ truth = "train" }]', '[{ truth = "train" }, { truth = "valid" }]')
    )
    assert "2 photos of the evaluation are also trained on" in message
    assert "levle0_000.jpg" in message and "`leave_out`" in message


def test_the_evaluation_part_as_negatives(recipe: Path) -> None:
    message = refused(with_line(recipe, '["clear"]', '["clear", "valid"]'))
    assert "2 photos of the evaluation are also trained on" in message


def test_copies_of_evaluation_photos_under_other_names(recipe: Path) -> None:
    folder = recipe.parent
    shutil.copyfile(folder / "valid" / "levle1_001.jpg", folder / "clear" / "face.jpg")
    message = refused(recipe)
    assert "1 photos of the evaluation" in message and "face.jpg" in message


def test_left_out_they_are_no_reason_to_refuse(recipe: Path) -> None:
    folder = recipe.parent
    shutil.copyfile(folder / "valid" / "levle1_001.jpg", folder / "train" / "again.jpg")
    said = (folder / "valid" / "levle1_001.xml").read_text(encoding="utf-8")
    (folder / "train" / "again.xml").write_text(
        said.replace("levle1_001.jpg", "again.jpg"), encoding="utf-8"
    )
    with_line(recipe, '[{ truth = "train" }]', '[{ truth = "train", leave_out = ["again"] }]')
    with_line(recipe, "epochs = 6", "iterations = 1")
    assert train("detector", recipe, folder / "out", SilentProgress()).trained is not None


def test_photos_that_only_looks_at_are_the_only_ones_used(recipe: Path) -> None:
    with_line(
        recipe,
        'train = [{ truth = "train" }]',
        'train = [{ truth = "train", only = ["levle1_001", "levle9_999"] }]',
    )
    assert "setting `only`" in refused(recipe) and "levle9_999" in refused(recipe)
