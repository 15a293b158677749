"""Test which photo is in which batch: the same whoever makes it, wherever the training begins."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.train.detection.crops import Changes
from skinbatch.train.detection.loader import Order, TrainingInputs, loader
from skinbatch.train.detection.scaled_photos import BoxedPhoto, ScaledPhotos
from skinbatch.train.photos.photo_store import StoredPhoto
from skinbatch.train.recipe_sections import AugmentSection
from tests.unit.train.detection.spotted import write_spotted

SPEC = DetectorSpec("yolox-tiny", ("acne",), size=64)
AUGMENT = AugmentSection(flip=0.5, scale=(0.8, 1.2), mosaic=0.3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[BoxedPhoto]:
    folder = write_spotted(tmp_path_factory.mktemp("spotted"), photos=9, clear=2).parent
    paths = sorted((folder / "train").glob("*.jpg"))
    box = np.array([[10, 10, 40, 50], [0, 0, 3, 3]], np.float32)
    return [BoxedPhoto(StoredPhoto(p.name, p), 128, 128, box, np.array([0, 0])) for p in paths]


def test_every_photo_is_seen_once_an_epoch_and_in_another_order_in_the_next() -> None:
    order = Order(9, 1, 2, seed=5)
    keys = [key for batch in islice(order, 2 * len(order)) for key in batch]
    first, second = keys[:10], keys[10:]
    assert len(order) == 5
    assert (
        sorted(index for _, index in first)
        == sorted(index for _, index in second)
        == list(range(10))
    )
    assert [index for _, index in first] != [index for _, index in second]
    assert [place for place, _ in keys] == list(range(20))


def test_a_training_that_goes_on_has_the_batches_that_were_left() -> None:
    whole = list(islice(Order(9, 0, 2, seed=5), 12))
    for step in (0, 3, 5, 7):
        assert list(islice(Order(9, 0, 2, seed=5, first=step), 12 - step)) == whole[step:]


def test_workers_share_the_batches_of_one_that_is_alone() -> None:
    alone = list(islice(Order(9, 0, 4, seed=5), 6))
    shares = [list(islice(Order(9, 0, 2, seed=5, rank=rank, world=2), 6)) for rank in (0, 1)]
    assert [one + other for one, other in zip(*shares, strict=True)] == alone


@pytest.mark.parametrize("memory", [0, 5 * 64 * 64 * 3, 10**9])
def test_a_batch_is_the_same_however_many_processes_make_it_and_wherever_photos_are_kept(
    photos: list[BoxedPhoto], memory: int
) -> None:
    def batches(processes: int, memory: int) -> list[dict[str, torch.Tensor]]:
        inputs = TrainingInputs(
            ScaledPhotos(photos, SPEC), ScaledPhotos(photos[:2], SPEC), Changes(64, AUGMENT), 5
        )
        inputs.fill(memory)
        return list(islice(loader(inputs, Order(9, 1, 4, seed=5), processes, pinned=False), 4))

    for one, other in zip(batches(0, 10**9), batches(2, memory), strict=True):
        assert one["pixels"].shape == (4, 3, 64, 64) and one["pixels"].dtype == torch.uint8
        assert int(one["counts"].sum()) == len(one["boxes"]) == len(one["labels"])
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_photos_are_at_network_scale_and_slips_of_the_hand_are_no_boxes(
    photos: list[BoxedPhoto],
) -> None:
    sample = ScaledPhotos(photos, SPEC)[3]
    assert sample.pixels.shape == (64, 64, 3)
    np.testing.assert_allclose(sample.boxes, [[5, 5, 20, 25]])
    assert sample.labels.tolist() == [0]
