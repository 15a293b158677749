"""Trained stages to a pack that loads, with a card that says what was recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skinbatch.config import ModelSettings
from skinbatch.errors import UsageError
from skinbatch.models.pack import load_pack
from skinbatch.train.assemble import assemble
from skinbatch.train.classifier import CLASSES
from tests.unit.models.support import CLASSIFIER, DETECTOR, write_random_pack


def write(folder: Path, stage: str, weights: Path, record: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / f"{stage}.safetensors").write_bytes(weights.read_bytes())
    (folder / f"{stage}.json").write_text(json.dumps(record))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """As the trainers leave it, with weights that have learned nothing and two disease classes."""
    pack = write_random_pack(tmp_path / "random")
    work = tmp_path / "work"
    run = {
        "steps": 10,
        "seconds": 60,
        "stopped": "time ran out",
        "hardware": "an abacus",
        "seed": 1,
        "parameters": 900000,
    }
    point = {"step": 10, "minutes": 1.0, "loss": 0.5, "score": 0.8}
    segmenter = run | {"arch": "bisenet-light", "classes": ["background", "skin", "nose"], "size": 64}
    segmenter |= {"metrics": {"dice_background": 0.95, "dice_skin": 0.9371, "dice_nose": 0.9}}
    segmenter |= {"data": {"CelebAMask-HQ subset": {"train": 720, "valid": 80}}}
    segmenter |= {"curve": [point | {"dice_skin": 0.9, "dice_nose": 0.8}]}
    write(work / "segmenter", "segmenter", pack / "segmenter.safetensors", segmenter)
    detector = run | {"arch": "yolox-tiny", "classes": ["acne"], "input": "crop", "size": 128, "max_upscale": 1.0}
    detector |= {"strides": [8, 16], "width": None, "head_channels": 32, "anchors": {"scales": [8.0], "ratios": [1.0]}}
    detector |= {
        "mean": list(DETECTOR.mean),
        "std": list(DETECTOR.std),
        "bgr": False,
        "nms_iou": 0.5,
        "threshold": 0.33,
    }
    detector |= {"data": {"train": 991, "train_boxes": 9000}, "minutes": 30.0, "epochs": 20}
    detector |= {"curve": [{"epoch": 1.0, "minutes": 1.0, "loss": 9.0, "ap50": 0.1, "count_mae": 5.0}]}
    detector |= {
        "metrics": {
            "valid_photos": 283,
            "ap50": 0.2345,
            "count_mae": 4.2,
            "count_mae_of_guessing_the_training_mean": 9.9,
            "threshold_from_train_photos": 283,
            "boxes_on_clear_faces": 0.5,
            "clear_faces": 80,
        }
    }
    write(work / "detector", "detector", pack / "detector.safetensors", detector)
    values = dict.fromkeys(CLASSES, 0.25)
    classifier = run | {"arch": "timm", "backbone": CLASSIFIER.backbone, "classes": list(CLASSIFIER.classes)}
    classifier |= {
        "size": 64,
        "fit": "crop",
        "threshold": 0.4,
        "curve": [point],
        "data": {"rosacea": {"train": 24, "valid": 6}},
    }
    classifier |= {
        "metrics": {
            "average_precision": values,
            "average_precision_of_guessing": values,
            "recall": values | {"none": 0.9},
            "photos": dict.fromkeys([*CLASSES, "none"], 6),
        }
    }
    write(work / "classifier", "classifier", pack / "classifier-disease.safetensors", classifier)
    return work


def test_the_pack_builds_and_carries_the_thresholds_that_were_chosen(work: Path, tmp_path: Path) -> None:
    assemble(work, tmp_path / "starter")
    pack = load_pack(tmp_path / "starter")
    assert (pack.name, pack.threshold) == ("starter", 0.33)
    assert pack.prob_columns == ("prob_rosacea", "prob_lupus_erythematosus")
    models = pack.build("cpu", ModelSettings())
    assert models.classifiers[0].threshold == 0.4
    assert models.segmenter([np.zeros((32, 64, 3), np.uint8)])[0].shape == (32, 64)


def test_the_card_prints_what_was_recorded_and_on_which_terms(work: Path, tmp_path: Path) -> None:
    assemble(work, tmp_path / "starter")
    card = (tmp_path / "starter" / "CARD.md").read_text()
    for text in ("0.937", "0.2345", "not for clinical use", "confounded", "jobs/train_starter.py", "non-commercial"):
        assert text in card, text
    assert "for comparison" not in card
    assert "diagnose" in (tmp_path / "starter" / "LICENSE.md").read_text()


def test_a_second_detector_stands_beside_the_first_in_the_card(work: Path, tmp_path: Path) -> None:
    rival = json.loads((work / "detector" / "detector.json").read_text()) | {"arch": "faster-rcnn-r18"}
    (work / "faster_rcnn").mkdir()
    (work / "faster_rcnn" / "detector.json").write_text(json.dumps(rival))
    assemble(work, tmp_path / "starter")
    assert "for comparison: faster-rcnn-r18" in (tmp_path / "starter" / "CARD.md").read_text()


def test_a_stage_that_has_not_been_trained_is_named(work: Path, tmp_path: Path) -> None:
    (work / "classifier" / "classifier.json").unlink()
    with pytest.raises(UsageError, match=r"classifier\.json: not there; train this stage first"):
        assemble(work, tmp_path / "starter")
