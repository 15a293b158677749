"""The pack that is shipped: complete, small enough, honest, and good for something on real photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from skinbatch.config import ModelSettings
from skinbatch.models.base import Models
from skinbatch.models.pack import Pack, load_pack
from skinbatch.scoring.fingerprint import fingerprint, numbers


@pytest.fixture(scope="module")
def pack() -> Pack:
    return load_pack("starter")


@pytest.fixture(scope="module")
def models(pack: Pack) -> Models:
    return pack.build("cpu", ModelSettings())


def test_every_file_has_its_recorded_hash_and_all_weights_are_30_mb_at_most(pack: Pack) -> None:
    pack.verify()
    assert sum(pack.weights_file(stem).stat().st_size for stem in pack.weights) <= 30_000_000


def test_it_has_one_class_of_lesions_and_the_six_diseases_of_the_paper(pack: Pack) -> None:
    assert pack.detector_classes == ("acne",)
    assert fingerprint(numbers(pack, ModelSettings())) == "e8d812b56f4d", "archives would be scored anew"
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
    ):
        assert text in card, text
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
        np.asarray(Image.open(p).convert("RGB")) for p in sorted((shared_data / "acne04/valid").glob("*.jpg"))[::20]
    ]
    shares = [float((labels > 0).mean()) for labels in models.segmenter(photos)]
    assert np.median(shares) > 0.3
    assert min(shares) > 0.1


def test_healthy_faces_mostly_get_no_disease(models: Models, shared_data: Path) -> None:
    faces = sorted((shared_data / "celebamask/images").glob("*.jpg"))[-20:]
    (classifier,) = models.classifiers
    probs = classifier([np.asarray(Image.open(p).convert("RGB")) for p in faces])
    assert np.mean(probs.max(1) < classifier.threshold) >= 0.8
