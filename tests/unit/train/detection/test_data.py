"""From gathered photos to boxes in the photo's own pixels, as many as the network is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinbatch.config import ModelSettings
from skinbatch.models.build import detector_spec
from skinbatch.models.stages import DetectorStage
from skinbatch.train.detection.data import DetectionData, Faces, boxed
from skinbatch.train.fitting.parts import gather_part, parts_of
from skinbatch.train.recipe import read_recipe
from tests.unit.annotations.support import photo, voc
from tests.unit.train.detection.spotted import write_spotted


def data_of(recipe_file: Path, size: int = 128) -> DetectionData:
    recipe = read_recipe(recipe_file)
    stage = recipe.model.stage
    assert isinstance(stage, DetectorStage)
    spec = detector_spec(stage.model_copy(update={"size": size}), ModelSettings())
    (part,) = parts_of(recipe)
    return boxed(gather_part(recipe, part), part.data, stage.classes, Faces(None, False, "cpu"), spec, "recipe.toml")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Forty photos of 128 x 128, and one of 400 x 300 that was annotated on a copy of half the size."""
    made = write_spotted(tmp_path)
    photo(tmp_path / "train" / "half.jpg", width=400, height=300)
    voc(tmp_path / "train" / "half.xml", [[20, 30, 60, 80], [100, 50, 101, 51]], size=(200, 150))
    return made


def test_boxes_of_a_scaled_copy_are_where_the_lesion_is(recipe: Path) -> None:
    (found,) = [p for p in data_of(recipe, size=512).train if p.stored.name.endswith("half.jpg")]
    assert (found.width, found.height) == (400, 300)
    assert found.boxes[0].tolist() == [40, 60, 120, 160]


def test_boxes_that_are_too_small_for_the_network_are_told_and_not_counted(recipe: Path) -> None:
    data = data_of(recipe)
    drawn = sum(1 + n % 6 for n in range(40)) + 2
    (train,) = [count for count in data.counts if count.part == "train" and count.things]
    assert train.things == {"acne": drawn - 1} == {"acne": sum(len(p.boxes) for p in data.train)}
    (note,) = data.notes
    assert note.startswith("1 boxes are smaller than 3 pixels") and "half.jpg" in note
    assert data_of(recipe, size=1024).notes == ()
