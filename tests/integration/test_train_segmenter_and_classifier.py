"""The starter's trainers on a few drawn photos laid out like the real data: they run, stop in time and leave a stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinbatch.models.classifiers.classifier import ClassifierNetwork
from skinbatch.models.segmenters.bisenet import BiSeNet
from skinbatch.models.weights import load_weights, read_weights
from skinbatch.train import classifier, segmenter


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """84 faces with masks, ten photos of every disease, ten of acne: discs of one colour each."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    for folder in ("celebamask/images", "celebamask/masks", "acne04/train"):
        (root / folder).mkdir(parents=True)
    for i in range(84):
        distance = np.hypot(x - rng.integers(24, 40), y - rng.integers(24, 40))
        photo = rng.integers(0, 60, (64, 64, 3)).astype(np.uint8)
        photo[distance < 20] = (210, 160, 140)
        photo[distance < 5] = (150, 90, 90)
        Image.fromarray(photo).save(root / f"celebamask/images/{i:03}.jpg")
        mask = np.where(distance < 5, 2, np.where(distance < 20, 1, 13)).astype(np.uint8)
        Image.fromarray(mask).save(root / f"celebamask/masks/{i:03}.png")
    for n, folder in enumerate([*(f"derm/{name}" for name in classifier.FOLDERS), "acne04/train"]):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(10):
            photo = np.full((48, 64, 3), (25 * n + 20, 200 - 20 * n, 90), np.uint8)
            Image.fromarray(photo).save(root / folder / f"{i}.jpg")
    return root


def test_the_segmenter_stage_is_weights_and_a_record_with_dice_of_every_class(data: Path, tmp_path: Path) -> None:
    segmenter.train(data, tmp_path, minutes=0.05)
    record = json.loads((tmp_path / "segmenter.json").read_text())
    assert set(record["metrics"]) == {"dice_background", "dice_skin", "dice_nose"}
    assert record["data"] == {"CelebAMask-HQ subset": {"train": 4, "valid": 80}}
    assert record["curve"][-1]["step"] == record["steps"] > 0
    load_weights(BiSeNet(record["arch"], 3), read_weights(tmp_path / "segmenter.safetensors"), "it")


def test_the_classifier_stage_is_weights_and_a_record_with_the_confounded_class_among_others(
    data: Path, tmp_path: Path
) -> None:
    classifier.train(data, tmp_path, minutes=0.05)
    record = json.loads((tmp_path / "classifier.json").read_text())
    assert set(record["metrics"]["recall"]) == {*classifier.CLASSES, "none"}
    assert record["data"]["rosacea"] == {"train": 8, "valid": 2}
    assert 0.05 <= record["threshold"] <= 0.95
    load_weights(ClassifierNetwork(classifier.SPEC), read_weights(tmp_path / "classifier.safetensors"), "it")


def test_photos_are_split_by_the_order_of_their_names_numbers_as_numbers(data: Path) -> None:
    folder = data / "derm" / "rosacea"
    names = sorted((folder / f"photo_{n}.jpg" for n in (1, 2, 10, 11)), key=classifier._natural)
    assert [path.name for path in names] == ["photo_1.jpg", "photo_2.jpg", "photo_10.jpg", "photo_11.jpg"]
    photos = classifier.read_photos(data)
    assert photos.counts["rosacea"] == {"train": 8, "valid": 2}


def test_no_view_of_a_disease_photo_shows_the_corner_with_the_watermark(tmp_path: Path) -> None:
    photo = np.zeros((216, 288, 3), np.uint8)
    photo[int(0.67 * 216) :, : int(0.265 * 288)] = 255
    photo[int(0.8 * 216) :, : int(0.57 * 288)] = 255
    for view in classifier._without_watermark(photo):
        assert view.max() == 0
        assert min(view.shape[:2]) > 100
