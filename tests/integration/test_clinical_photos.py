"""Test that clinical photos are sorted by what they show, and that whole patients are kept apart."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jobs.clinical_masks import with_body, without_edges
from jobs.clinical_photos import (
    LIST,
    USED,
    Clinical,
    groups_of,
    read_list,
)
from skinbatch.annotations.masks import BODY, SKIN, UNSURE

DATA = Path(__file__).parents[3] / "shared" / "data"


def photo(key: str, shows: str = "skin") -> Clinical:
    return Clinical(key, Path("data") / key, shows)


def test_photos_of_a_patient_of_one_look_and_of_a_block_of_neighbours_stay_together() -> None:
    photos = [
        photo("derm_more/basal_cell_carcinoma/pad_PAT_7_1_100.jpg"),
        photo("derm_more/squamous_cell_carcinoma/pad_PAT_7_2_200.jpg"),
        photo("derm_more/basal_cell_carcinoma/pad_PAT_8_1_100.jpg"),
        photo("derm_more/other/f17k_keloid_aa.jpg"),
        photo("derm_more/other/f17k_keloid_bb.jpg"),
        *(photo(f"derm/rosacea/{3600 + n}.jpg") for n in range(10)),
    ]
    looks = list(range(len(photos)))
    looks[4] = looks[2]
    groups = groups_of(photos, looks)
    assert groups[0] == groups[1] != groups[2]
    assert groups[4] == groups[2]
    assert groups[3] not in (groups[0], groups[2])
    assert sorted(Counter(groups[5:]).values()) == [2] * 5
    assert groups[5] == groups[6] != groups[7]


def test_the_origin_is_told_by_the_name() -> None:
    names = ("pad_PAT_7_1_100.jpg", "f17k_keloid_aa.jpg", "dermnet_rhinophyma_01.jpg", "3602.jpg")
    assert [photo(f"derm_more/other/{name}").origin for name in names] == [
        "pad",
        "atlas",
        "dermnet",
        "dermnet",
    ]
    assert photo("derm/seborrheic_keratosis_like/Keratosis_1.jpg").origin == "web"


def test_a_lesion_within_skin_is_skin_and_what_is_between_is_unsure() -> None:
    chance = np.full((100, 120), 0.01, np.float32)
    chance[20:80, 20:100] = 0.95
    chance[40:50, 50:60] = 0.02  # a lesion
    chance[20:80, 100:] = 0.4
    for shows, kind in (("body", BODY), ("partly", SKIN)):
        mask = with_body(chance, shows)
        assert mask[45, 55] == mask[60, 60] == kind
        assert mask[5, 5] == 0
        assert mask[50, 110] == UNSURE
        assert mask[20, 60] == UNSURE, "an edge"
    assert (without_edges(np.ones((9, 9), np.uint8)) == 1).all()


def test_the_list_says_of_each_photo_once_what_it_shows() -> None:
    with open(LIST, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["shows"] for row in rows} == {*USED, "hair", "out"}
    assert len({row["photo"] for row in rows}) == len(rows)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the photos of ../shared/data")
def test_every_photo_of_the_list_is_there_and_every_clinical_photo_is_listed() -> None:
    listed = {row["photo"] for row in csv.DictReader(LIST.read_text(encoding="utf-8").splitlines())}
    there = {
        str(path.relative_to(DATA))
        for part in ("derm", "derm_more")
        for path in (DATA / part).glob("*/*")
    }
    assert listed == there
    assert len(read_list(DATA)) > 2000
