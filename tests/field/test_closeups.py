"""Test an archive of close-ups, hands and faces, scored with a pack whose segmenter distinguishes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import skinbatch
from skinbatch.models.fake import write_fake_pack
from skinbatch.report.photo_again import find_row
from tests.faces import face

SKIN, BODY_SKIN, LESION, DRAPE = (200, 150, 120), (140, 100, 80), (230, 60, 50), (20, 40, 160)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Score a close-up with eight lesions, a hand on a blue drape, a face, and a wall."""
    root = tmp_path_factory.mktemp("closeups")
    near = np.full((200, 240, 3), SKIN, np.uint8)
    for n in range(8):
        top, left = 40 + 60 * (n // 4), 20 + 40 * (n % 4)
        near[top : top + 12, left : left + 12] = LESION
    hand = np.full((200, 240, 3), DRAPE, np.uint8)
    hand[30:170, 40:200] = BODY_SKIN
    photos = {"near": near, "hand": hand, "face": face(3, 2)}
    (root / "photos").mkdir()
    for name, pixels in photos.items():
        Image.fromarray(pixels).save(root / "photos" / f"{name}.png")
    pack = write_fake_pack(root / "pack", closeups=True)
    report = skinbatch.score(
        str(root / "photos"), str(root / "out"), pack=str(pack), engine="local"
    )
    assert report.exit_code == 0
    return root / "out"


def row(scored: Path, name: str) -> dict[str, Any]:
    (found,) = (
        r
        for r in skinbatch.open(str(scored)).images().to_pylist()
        if r["image_id"] == f"{name}.png"
    )
    return dict(found)


def test_a_close_up_is_graded_by_all_its_lesions_and_marked(scored: Path) -> None:
    near = row(scored, "near")
    assert (near["face"], near["view"]) == (True, "closeup")
    assert (near["count_total"], near["count_left"], near["count_right"]) == (8, None, None)
    assert (near["grade"], near["grade_level"], near["grade_scheme"]) == (
        "moderate",
        1,
        "hayashi-closeup",
    )
    assert near["prob_rosacea"] is not None
    sides = {
        b["side"]
        for b in skinbatch.open(str(scored)).boxes().to_pylist()
        if b["image_id"] == "near.png"
    }
    assert sides == {None}


def test_a_hand_has_probabilities_but_no_facial_grade(scored: Path) -> None:
    hand = row(scored, "hand")
    assert (hand["status"], hand["face"], hand["faces"], hand["view"]) == ("ok", False, 0, "body")
    assert (hand["count_total"], hand["grade"], hand["grade_scheme"]) == (None, None, None)
    assert hand["prob_rosacea"] is not None
    assert hand["crop_x1"] is not None


def test_a_face_is_what_it_always_was(scored: Path) -> None:
    whole = row(scored, "face")
    assert (whole["face"], whole["view"], whole["grade_scheme"]) == (True, "frontal", "hayashi")
    assert (whole["count_left"], whole["count_right"]) == (3, 2)


def test_the_classifier_looked_at_the_hand_so_its_answer_can_be_explained(scored: Path) -> None:
    assert find_row(skinbatch.open(str(scored)), "hand.png")["image_id"] == "hand.png"
