"""Test that one photo gives one result, whatever a model does with it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import skinbatch
from skinbatch.errors import UsageError
from skinbatch.grading.face import find_face
from skinbatch.models.fake import write_fake_pack
from skinbatch.scoring.failures import DeviceLost
from skinbatch.scoring.inference import model_input
from skinbatch.scoring.scorer import Scorer
from skinbatch.types import Detections, Status
from tests.faces import face, jpeg

Photo = NDArray[np.uint8]


@pytest.fixture
def scorer(tmp_path: Path) -> Scorer:
    return Scorer(write_fake_pack(tmp_path / "fake"), device="cpu")


def test_a_path_bytes_an_array_and_a_pil_image_give_the_same_result(
    scorer: Scorer, tmp_path: Path
) -> None:
    data = jpeg(face(2, 1))
    path = tmp_path / "face.jpg"
    path.write_bytes(data)
    pil = Image.open(path)
    results = [
        scorer(path),
        scorer(str(path)),
        scorer(data),
        scorer(pil),
        scorer(np.asarray(pil.convert("RGB"))),
    ]
    assert all(r == results[0] for r in results)
    assert results[0].status is Status.OK
    assert results[0].face is True
    assert results[0].count_total == sum(b.counted for b in results[0].boxes) > 0


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), 7])
def test_what_is_no_image_is_refused_with_what_is_one(scorer: Scorer, wrong: object) -> None:
    with pytest.raises(UsageError, match=r"\(H, W, 3\) uint8 RGB array"):
        scorer(wrong)  # type: ignore[arg-type]


def test_a_path_that_is_not_there_is_a_usage_error_and_a_broken_photo_a_result(
    scorer: Scorer,
) -> None:
    with pytest.raises(UsageError, match=r"none\.jpg"):
        scorer("none.jpg")
    assert scorer(jpeg(face())[:300]).status is Status.TRUNCATED


def test_a_photo_without_a_face_has_no_counts_and_its_detector_is_not_run(scorer: Scorer) -> None:
    def _never(photos: Sequence[Photo]) -> list[Detections]:
        assert not photos
        return []

    never: Any = _never
    never.classes, never.input = scorer.models.detector.classes, "crop"

    def _nobody(photos: Sequence[Photo]) -> list[Photo]:
        return [np.zeros((8, 8), np.uint8) for _ in photos]

    nobody: Any = _nobody
    nobody.classes = scorer.models.segmenter.classes
    scorer.models = replace(scorer.models, segmenter=nobody, detector=never)
    result = scorer(np.full((64, 64, 3), (0, 90, 0), np.uint8))
    assert (result.status, result.face, result.crop, result.count_total, result.grade) == (
        Status.OK,
        False,
        None,
        None,
        None,
    )
    assert result.boxes == ()


class Failing:
    """Raise, or give NaN, on photos whose first pixel is black: as a detector or a classifier."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, photos: Sequence[Photo]) -> Any:
        guilty = [not photo[0, 0].any() for photo in photos]
        if hasattr(self.model, "head"):
            probs = np.asarray(self.model(photos))
            probs[guilty] = np.nan
            return probs
        if any(guilty):
            raise RuntimeError("the layer does not like this photo")
        return self.model(photos)


@pytest.mark.parametrize("stage", ["segmenter", "detector", "classifier"])
def test_a_model_that_fails_on_one_photo_of_a_batch_fails_that_photo_only(
    scorer: Scorer, stage: str
) -> None:
    models = scorer.models
    failing = {
        "segmenter": replace(models, segmenter=Failing(models.segmenter)),
        "detector": replace(models, detector=replace_input(Failing(models.detector))),
        "classifier": replace(
            models, classifiers=tuple(replace_input(Failing(c)) for c in models.classifiers)
        ),
    }
    scorer.models = failing[stage]
    photos = [face(3, seed) for seed in range(4)]
    photos[2] = photos[2].copy()
    photos[2][0, 0] = 0
    results = scorer.score_batch(photos)
    assert [r.status for r in results] == [Status.OK, Status.OK, Status.MODEL_ERROR, Status.OK]
    assert results[2].error is not None
    assert stage in results[2].error
    assert results[2].probs == {}
    assert results[2].count_total is None


def replace_input(model: Any) -> Any:
    """Let the model see whole photos, so that the black pixel is not cropped away."""
    model.input = "image"
    return model


def test_the_batch_does_not_change_a_result(scorer: Scorer) -> None:
    photos = [face(seed, seed) for seed in range(5)]
    assert scorer.score_batch(photos) == [scorer.score_batch([photo])[0] for photo in photos]


def test_a_masked_crop_has_nothing_but_skin_in_it() -> None:
    rgb = np.full((80, 100, 3), 200, np.uint8)
    label_map = np.zeros((40, 50), np.uint8)
    label_map[10:30, 10:40] = 1
    found = find_face(label_map, ("background", "skin", "nose"), 100, 80)
    whole, crop, masked = (
        model_input(rgb, found, kind) for kind in ("image", "crop", "masked_crop")
    )
    assert whole.shape == (80, 100, 3)
    assert crop.shape == masked.shape
    assert crop.all()
    assert masked[crop.shape[0] // 2, crop.shape[1] // 2].all()
    assert not masked[0, 0].any()
    assert abs(int((masked[..., 0] > 0).sum()) - 40 * 60) < 200


SKIN, BODY_SKIN = (200, 150, 120), (140, 100, 80)


def filled(colour: tuple[int, int, int], lesions: int = 0) -> Photo:
    """Return a photo of one colour with red lesions."""
    photo = np.full((200, 240, 3), colour, np.uint8)
    for n in range(lesions):
        photo[40:52, 20 + 40 * n : 32 + 40 * n] = (230, 60, 50)
    return photo


def test_a_close_up_has_counts_and_probabilities_and_a_marked_grade(tmp_path: Path) -> None:
    scorer = Scorer(write_fake_pack(tmp_path / "near", closeups=True), device="cpu")
    result = scorer(filled(SKIN, lesions=3))
    assert (result.face, result.view, result.grade_scheme) == (True, "closeup", "hayashi-closeup")
    assert (result.count_total, result.count_left, result.count_right, result.grade) == (
        3,
        None,
        None,
        "mild",
    )
    assert set(result.probs) == {"prob_rosacea", "prob_lupus_erythematosus"}
    assert result.crop == (0, 0, 240, 200)


def test_skin_of_the_body_has_probabilities_but_no_counts_and_no_grade(tmp_path: Path) -> None:
    scorer = Scorer(write_fake_pack(tmp_path / "near", closeups=True), device="cpu")
    hand = filled((20, 40, 160))
    hand[30:170, 40:200] = BODY_SKIN
    result = scorer(hand)
    assert (result.status, result.face, result.faces, result.view) == (Status.OK, False, 0, "body")
    assert (result.count_total, result.grade, result.grade_scheme, result.boxes) == (
        None,
        None,
        None,
        (),
    )
    assert set(result.probs) == {"prob_rosacea", "prob_lupus_erythematosus"}
    assert result.sharpness is not None
    assert result.ita_degrees is not None


def test_a_pack_that_does_not_know_close_ups_gives_what_it_always_gave(scorer: Scorer) -> None:
    result = scorer(filled(SKIN, lesions=3))
    assert (result.face, result.view, result.grade_scheme) == (True, "half", "hayashi")
    assert "closeups" not in scorer.pack.segmenter.numbers()


def test_knowing_close_ups_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    near = Scorer(write_fake_pack(tmp_path / "near", closeups=True), device="cpu")
    assert near.pack.segmenter.numbers()["closeups"] is True


def test_the_public_names_are_there() -> None:
    assert skinbatch.Scorer is Scorer
    assert {"Scorer", "open", "retry", "score", "verify"} <= set(dir(skinbatch))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = skinbatch.nothing


def test_a_lost_gpu_is_not_the_photos_fault(scorer: Scorer) -> None:
    class Lost(Failing):
        def __call__(self, photos: Sequence[Photo]) -> Any:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    scorer.models = replace(scorer.models, detector=Lost(scorer.models.detector))
    with pytest.raises(DeviceLost, match="illegal memory access"):
        scorer.score_batch([face(2, 1)])
