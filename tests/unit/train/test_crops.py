"""Training crops keep boxes on what they mark."""

from __future__ import annotations

import dataclasses

import numpy as np

from skinbatch.train.crops import CropRecipe, epoch_crops, random_crop

STEADY_LIGHT = CropRecipe(side=160, light=0.0)
NONE = np.zeros((0, 4), np.float32)


def test_boxes_stay_on_their_marks_through_scale_stretch_and_mirror() -> None:
    pixels = np.full((320, 320, 3), 10, np.uint8)
    boxes = np.array([[40, 60, 80, 90], [200, 150, 230, 200], [100, 250, 150, 280]], np.float32)
    for x1, y1, x2, y2 in boxes.astype(int):
        pixels[y1:y2, x1:x2] = 250
    recipe = dataclasses.replace(STEADY_LIGHT, visible=0.99, on_lesion=1.0)
    seen = 0
    for seed in range(40):
        crop, left = random_crop(pixels, boxes, np.random.default_rng(seed), recipe)
        assert crop.shape == (160, 160, 3)
        for x1, y1, x2, y2 in left:
            marked = crop[round(y1) : round(y2), round(x1) : round(x2)]
            assert marked.mean() > 225
            seen += 1
    assert seen > 30


def test_width_and_height_are_stretched_apart_as_far_as_the_recipe_says() -> None:
    pixels = np.zeros((400, 400, 3), np.uint8)
    box = np.array([[180, 180, 220, 220]], np.float32)
    recipe = dataclasses.replace(STEADY_LIGHT, visible=1.0, on_lesion=1.0)
    kept = [random_crop(pixels, box, np.random.default_rng(seed), recipe)[1] for seed in range(200)]
    sides = np.concatenate([boxes[:, 2:] - boxes[:, :2] for boxes in kept if len(boxes)])
    ratios = sides[:, 0] / sides[:, 1]
    assert 1 / 1.41 < ratios.min() < 0.8 and 1.25 < ratios.max() < 1.41


def test_what_is_mostly_outside_is_not_asked_for() -> None:
    pixels = np.zeros((400, 400, 3), np.uint8)
    box = np.array([[0, 0, 400, 400]], np.float32)  # no crop of 160 px shows a third of it
    for seed in range(20):
        assert len(random_crop(pixels, box, np.random.default_rng(seed), STEADY_LIGHT)[1]) == 0


def test_a_photo_smaller_than_the_crop_is_set_in_grey() -> None:
    crop, _ = random_crop(np.full((40, 40, 3), 255, np.uint8), NONE, np.random.default_rng(0), STEADY_LIGHT)
    assert tuple(np.median(crop.reshape(-1, 3), axis=0)) == (114, 114, 114)
    assert (crop > 250).any()


def test_an_epoch_shows_each_photo_once_and_clear_photos_between_them_and_repeats_from_its_seed() -> None:
    photos = [(np.full((200, 200, 3), 10 + i, np.uint8), NONE) for i in range(50)]
    clear = [np.full((200, 200, 3), 240, np.uint8)]
    recipe = dataclasses.replace(STEADY_LIGHT, negatives=0.5)

    def levels(epoch: int) -> list[int]:
        return [int(np.median(crop)) for crop, _ in epoch_crops(photos, clear, recipe, 3, epoch)]

    first = levels(0)
    assert sorted(level for level in first if level < 200) == list(range(10, 60))
    assert 10 < first.count(240) < 40
    assert levels(0) == first != levels(1)
