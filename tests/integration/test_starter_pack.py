"""Test the shipped pack: complete, small enough, honest, and useful on real photos."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from jobs.measure_stages import _of_classes
from skinbatch.config import ModelSettings
from skinbatch.models.build import build
from skinbatch.models.pack import Pack, load_pack
from skinbatch.models.protocols import Models
from skinbatch.scoring.fingerprint import fingerprint, numbers


@pytest.fixture(scope="module")
def pack() -> Pack:
    return load_pack("starter")


@pytest.fixture(scope="module")
def models(pack: Pack) -> Models:
    return build(pack, "cpu", ModelSettings())


def test_every_file_has_its_recorded_hash_and_all_weights_are_30_mb_at_most(pack: Pack) -> None:
    pack.verify()
    assert sum(pack.weights_file(stem).stat().st_size for stem in pack.weights) <= 30_000_000


def test_it_has_one_class_of_lesions_and_the_six_diseases_of_the_paper(pack: Pack) -> None:
    assert pack.detector_classes == ("acne",)
    assert fingerprint(numbers(pack, ModelSettings())) == "711dea881e0a", (
        "archives would be scored anew"
    )
    assert pack.prob_columns == (
        "prob_seborrheic_keratosis",
        "prob_actinic_keratosis",
        "prob_rosacea",
        "prob_lupus_erythematosus",
        "prob_basal_cell_carcinoma",
        "prob_squamous_cell_carcinoma",
    )


def test_the_card_and_the_licence_say_what_it_is_not_for(pack: Pack) -> None:
    card, licence = pack.text("CARD.md"), pack.text("LICENSE.md")
    assert card is not None and licence is not None
    for text in (
        "not for clinical use",
        "non-commercial",
        "CelebAMask-HQ",
        "ACNE04",
        "DermNet",
        "jobs/starter_pack.py measure",
        "## What it must not be used for",
        "## Where it fails",
        "## By skin tone",
        "## Precisions",
        "## What is missing",
    ):
        assert text in card, text
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", card)
    assert len(pictures) >= 3
    assert all((pack.directory / name).is_file() for name in pictures)
    assert "not a medical device" in licence


def test_the_face_of_a_portrait_is_found_and_little_else(models: Models) -> None:
    (labels,) = models.segmenter([np.ascontiguousarray(astronaut()[:300, 80:380])])
    skin = labels > 0
    y, x = np.nonzero(skin)
    # The face is around (145, 120) of the 300 x 300 pixels, 75 wide and 100 high without the hair.
    scale = 300 / labels.shape[1]
    assert abs(np.median(x) * scale - 145) < 15 and abs(np.median(y) * scale - 120) < 20
    assert 0.04 < skin.mean() < 0.13
    assert (labels == models.segmenter.classes.index("nose")).any()


def test_half_faces_with_acne_are_masked_too(models: Models, shared_data: Path) -> None:
    photos = [
        np.asarray(Image.open(p).convert("RGB"))
        for p in sorted((shared_data / "acne04/valid").glob("*.jpg"))[::20]
    ]
    shares = [float((labels > 0).mean()) for labels in models.segmenter(photos)]
    assert np.median(shares) > 0.3
    assert min(shares) > 0.1


def test_healthy_faces_mostly_get_no_disease(models: Models, shared_data: Path) -> None:
    faces = sorted((shared_data / "celebamask/images").glob("*.jpg"))[-20:]
    (classifier,) = models.classifiers
    probs = classifier([np.asarray(Image.open(p).convert("RGB")) for p in faces])
    assert np.mean(probs.max(1) < classifier.threshold) >= 0.8


def test_the_card_tells_the_classifier_from_the_whole_pipeline() -> None:
    def numbers(recall: float, auc: float) -> dict[str, dict[str, float]]:
        found = {"recall": recall, "auc": auc}
        return {
            key: {"value": value, "low": value - 0.1, "high": value + 0.1}
            for key, value in found.items()
        }

    pipeline = {
        "photos": 30,
        "of_class": {"rosacea": 9},
        "without_face": 12,
        "without_face_of_class": {"rosacea": 4},
        "apart": ["lupus"],
        "classes": {"rosacea": numbers(0.3, 0.5), "mean": numbers(0.4, 0.6)},
    }
    alone = {
        "photos": 18,
        "of_class": {"rosacea": 5},
        "classes": {"rosacea": numbers(0.7, 0.9), "mean": numbers(0.6, 0.8)},
    }
    assert list(_of_classes({"all": {"classes.disease": pipeline | {"with_face": alone}}})) == [
        "| diseases, whole pipeline: mean recall without lupus, 30 photos, 12 of them without a face "
        "| 0.400 (0.300 to 0.500) |  |",
        "| diseases, classifier alone: mean recall without lupus, 18 photos with a face | 0.600 (0.500 to 0.700) |  |",
        "| diseases, whole pipeline: mean AUC without lupus, 30 photos, 12 of them without a face | 0.600 (0.500 to 0.700) |  |",
        "| diseases, classifier alone: mean AUC without lupus, 18 photos with a face | 0.800 (0.700 to 0.900) |  |",
        "| rosacea, whole pipeline: recall, 9 photos, 4 of them without a face | 0.300 (0.200 to 0.400) |  |",
        "| rosacea, classifier alone: recall, 5 photos with a face | 0.700 (0.600 to 0.800) |  |",
        "| rosacea, whole pipeline: AUC, 9 photos, 4 of them without a face | 0.500 (0.400 to 0.600) |  |",
        "| rosacea, classifier alone: AUC, 5 photos with a face | 0.900 (0.800 to 1.000) |  |",
    ]
    seen = pipeline | {"without_face": 0, "without_face_of_class": {"rosacea": 0}}
    assert list(_of_classes({"all": {"classes.disease": seen}}))[::2] == [
        "| diseases: mean recall without lupus, 30 photos | 0.400 (0.300 to 0.500) |  |",
        "| rosacea: recall, 9 photos | 0.300 (0.200 to 0.400) |  |",
    ]
