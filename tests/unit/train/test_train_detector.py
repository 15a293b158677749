"""The detector's trainer on a few made photos: what it leaves behind works, and it goes on where it was stopped."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from skinbatch.errors import UsageError
from skinbatch.models.detectors.mmdet_architectures import Anchors, DetectorSpec
from skinbatch.models.detectors.mmdet_detector import MMDetDetector, build_model
from skinbatch.train import detector
from skinbatch.train.crops import CropRecipe
from skinbatch.train.detection_scores import ap50
from skinbatch.train.voc import read_folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six photos with three dark spots each, in both parts, and a recipe of small crops."""
    quick = detector.TrainRecipe(batch=3, evaluate_every=1, crops=CropRecipe(side=64))
    monkeypatch.setattr(detector, "RECIPES", {"yolox-tiny": quick, "faster-rcnn-r18": quick})
    rng = np.random.default_rng(0)
    for part in ("train", "valid"):
        folder = tmp_path / "data" / "acne04" / part
        folder.mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(150, 190, (128, 128, 3), dtype=np.uint8)
            marks = ""
            for x, y in rng.integers(5, 110, (3, 2)):
                side = int(rng.integers(5, 12))
                cv2.rectangle(pixels, (int(x), int(y)), (int(x) + side, int(y) + side), (40, 30, 120), -1)
                marks += f"<object><bndbox><xmin>{x}</xmin><xmax>{x + side}</xmax><ymin>{y}</ymin>"
                marks += f"<ymax>{y + side}</ymax></bndbox></object>"
            size = "<size><width>128</width><height>128</height></size>"
            cv2.imwrite(str(folder / f"levle{i % 4}_{i}.jpg"), pixels)
            (folder / f"levle{i % 4}_{i}.xml").write_text(f"<annotation>{size}{marks}</annotation>")
    return tmp_path / "data"


@pytest.mark.parametrize("arch", ["yolox-tiny", "faster-rcnn-r18"])
def test_what_training_leaves_builds_the_detector_whose_scores_it_tells(data: Path, tmp_path: Path, arch: str) -> None:
    detector.train(data, tmp_path / "work", arch, minutes=0.001)
    record = json.loads((tmp_path / "work" / "detector.json").read_text())
    weights = load_file(tmp_path / "work" / "detector.safetensors")
    assert {str(v.dtype) for v in weights.values() if v.is_floating_point()} == {"torch.float16"}
    made = MMDetDetector(spec_of(record), weights)
    assert (made.classes, made.input) == (("acne",), "crop")
    valid = read_folder(data / "acne04" / "valid")
    found = detector.detect(made, valid)
    assert ap50([p.boxes for p in valid], found) == pytest.approx(record["metrics"]["ap50"], abs=1e-4)
    assert 0.05 <= record["threshold"] <= 0.95
    assert record["epochs"] == 1 and [point["epoch"] for point in record["curve"]] == [1]
    assert record["data"] == {"train": 6, "train_boxes": 18, "valid": 6}


def test_the_same_command_goes_on_from_the_checkpoint(data: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    detector.train(data, work, "yolox-tiny", minutes=0.001)
    first = torch.load(work / "checkpoint.pt", weights_only=True)
    detector.train(data, work, "yolox-tiny", minutes=0.001)
    assert torch.load(work / "checkpoint.pt", weights_only=True)["state"] == first["state"]  # its time was over
    spent = first["state"]["seconds"] / 60
    detector.train(data, work, "yolox-tiny", minutes=spent + 0.001)
    then = torch.load(work / "checkpoint.pt", weights_only=True)["state"]
    assert then["epoch"] == 2 and then["steps"] == 2 * first["state"]["steps"]
    assert [json.loads(line)["epoch"] for line in (work / "curve.jsonl").read_text().splitlines()] == [1, 2]


def test_training_ends_when_five_evaluations_bring_nothing_new(data: Path, tmp_path: Path) -> None:
    state = detector._State(curve=[{"ap50": v} for v in (0.1, 0.2, 0.15, 0.19, 0.2, 0.1)])
    assert not state.stopped_improving()
    state.curve.append({"ap50": 0.2})
    assert state.stopped_improving()
    state.curve.append({"ap50": 0.21})
    assert not state.stopped_improving()


def test_an_untrained_yolox_starts_with_boxes_as_large_as_lesions() -> None:
    spec = DetectorSpec("yolox-tiny", ("acne",), strides=(8, 16), width=0.25, score_floor=0.0)
    model = build_model(spec)
    detector.start_with_boxes_of(model, 30.0, spec)
    found = MMDetDetector(spec, model.state_dict())([np.full((256, 256, 3), 120, np.uint8)])[0]
    inside = (found.xyxy > 1).all(1) & (found.xyxy < 255).all(1)
    sides = (found.xyxy[:, 2:] - found.xyxy[:, :2])[inside]
    assert inside.sum() > 20 and math.isclose(float(np.median(sides)), 30, rel_tol=0.3)


def test_an_architecture_without_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="yolox-tiny"):
        detector.train(tmp_path, tmp_path / "work", "yolov4", 1)


def spec_of(record: dict[str, Any]) -> DetectorSpec:
    """As a pack's manifest gives it back."""
    fitted = record["anchors"]
    anchors = Anchors(tuple(fitted["scales"]), tuple(fitted["ratios"])) if fitted else None
    return DetectorSpec(
        record["arch"],
        tuple(record["classes"]),
        size=record["size"],
        max_upscale=record["max_upscale"],
        strides=tuple(record["strides"]),
        head_channels=record["head_channels"],
        anchors=anchors,
        width=record["width"],
    )
