"""Test what every segmenter, detector and classifier promises, for the fakes and the real architectures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from skinbatch.config import ModelSettings
from skinbatch.models.build import build
from skinbatch.models.fake import write_fake_pack
from skinbatch.models.pack import load_pack
from skinbatch.models.protocols import Models
from tests.unit.models.support import write_random_pack

FLOOR = 0.0005


@pytest.fixture(scope="module", params=["fake", "random"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Build models from a pack on disk, with a score floor low enough for networks that have learned nothing."""
    directory = tmp_path_factory.mktemp("packs") / str(request.param)
    write = write_fake_pack if request.param == "fake" else write_random_pack
    return build(load_pack(write(directory)), "cpu", ModelSettings(score_floor=FLOOR, max_boxes=20))


@pytest.fixture(scope="module")
def photos() -> list[NDArray[np.uint8]]:
    """Return photos of several sizes and shapes, one of a single pixel, with red discs on skin colour."""
    made = []
    for height, width in ((96, 128), (128, 96), (33, 200), (1, 1), (96, 128)):
        photo = np.full((height, width, 3), (205, 160, 140), np.uint8)
        photo[height // 3 : height // 3 + 9, width // 4 : width // 4 + 9] = (230, 40, 50)
        made.append(photo)
    noise = np.random.default_rng(3).integers(0, 256, (120, 90, 3), np.uint8)
    return [*made, noise]


def test_no_photos_give_no_results(models: Models) -> None:
    assert models.segmenter([]) == []
    assert models.detector([]) == []
    for classifier in models.classifiers:
        assert classifier([]).shape == (0, len(classifier.classes))


def test_label_maps_keep_the_proportions_and_name_only_known_classes(
    models: Models, photos: list[NDArray[np.uint8]]
) -> None:
    for photo, labels in zip(photos, models.segmenter(photos), strict=True):
        assert labels.dtype == np.uint8 and labels.ndim == 2
        assert labels.max() < len(models.segmenter.classes)
        scale = max(labels.shape) / max(photo.shape[:2])
        assert abs(labels.shape[0] - scale * photo.shape[0]) <= 0.5
        assert abs(labels.shape[1] - scale * photo.shape[1]) <= 0.5
    assert {"background", "skin", "nose"} <= set(models.segmenter.classes)


def test_boxes_lie_in_the_photo_best_first_above_the_floor_and_below_the_cap(
    models: Models, photos: list[NDArray[np.uint8]]
) -> None:
    for photo, found in zip(photos, models.detector(photos), strict=True):
        height, width = photo.shape[:2]
        assert (found.xyxy >= 0).all() and (found.xyxy <= (width, height, width, height)).all()
        assert (found.xyxy[:, 2:] > found.xyxy[:, :2]).all()
        assert (np.diff(found.scores) <= 0).all() and (found.scores >= FLOOR).all()
        assert set(found.labels.tolist()) <= set(range(len(models.detector.classes)))
        assert len(found) <= 20
        assert found.saturated == (len(found) == 20)


def test_probabilities_are_one_row_a_photo_in_0_to_1(
    models: Models, photos: list[NDArray[np.uint8]]
) -> None:
    for classifier in models.classifiers:
        probs = classifier(photos)
        assert probs.shape == (len(photos), len(classifier.classes)) and probs.dtype == np.float32
        assert ((probs >= 0) & (probs <= 1)).all()


def test_a_photo_alone_and_in_a_batch_gives_the_same(
    models: Models, photos: list[NDArray[np.uint8]]
) -> None:
    maps, found = models.segmenter(photos), models.detector(photos)
    probs = [classifier(photos) for classifier in models.classifiers]
    for i, photo in enumerate(photos):
        assert np.mean(models.segmenter([photo])[0] != maps[i]) < 0.001
        (alone,) = models.detector([photo])
        assert len(alone) == len(found[i])
        np.testing.assert_allclose(np.sort(alone.scores), np.sort(found[i].scores), atol=1e-4)
        for classifier, batch in zip(models.classifiers, probs, strict=True):
            np.testing.assert_allclose(classifier([photo])[0], batch[i], atol=1e-4)


def test_photos_are_not_written_to(models: Models, photos: list[NDArray[np.uint8]]) -> None:
    before = [photo.copy() for photo in photos]
    models.segmenter(photos)
    models.detector(photos)
    for classifier in models.classifiers:
        classifier(photos)
    for kept, photo in zip(before, photos, strict=True):
        np.testing.assert_array_equal(kept, photo)
