"""Test that pixels become the numbers that a network was trained on."""

import numpy as np
import pytest

from skinbatch.models.detectors.mmdet.detector import normalise
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.preprocess import Normalisation, channel_table, look_up

RNG = np.random.default_rng(3)
EVERY_VALUE = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)


@pytest.mark.parametrize(
    "normalisation",
    [
        Normalisation(),
        Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        Normalisation((0.0, 0.1, 0.2), (1.0, 0.3, 1 / 255)),
    ],
)
def test_a_table_gives_the_numbers_of_the_formula(normalisation: Normalisation) -> None:
    photos = [RNG.integers(0, 256, (16, 16, 3), np.uint8), EVERY_VALUE]

    tensor = normalisation.tensor(photos)

    for row, photo in zip(tensor.numpy(), photos, strict=True):
        assert np.array_equal(row.transpose(1, 2, 0), normalisation.scaled(photo))


def test_the_numbers_are_those_of_torchvision() -> None:
    from torchvision.transforms.functional import normalize, to_tensor

    normalisation = Normalisation()
    right = normalize(to_tensor(EVERY_VALUE), normalisation.mean, normalisation.std)

    assert np.allclose(normalisation.tensor([EVERY_VALUE])[0], right, atol=1e-6)


@pytest.mark.parametrize("bgr", [False, True])
def test_a_detector_s_table_gives_the_numbers_of_mmdet_s_formula(bgr: bool) -> None:
    spec = DetectorSpec(
        "yolox-s",
        ("acne",),
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        bgr=bgr,
    )
    table = channel_table(lambda pixels: normalise(pixels, spec))
    as_read = EVERY_VALUE[..., ::-1] if bgr else EVERY_VALUE
    place = np.empty(EVERY_VALUE.shape, np.float32)

    look_up(as_read, table, place)

    assert np.array_equal(place, normalise(EVERY_VALUE, spec))


def test_a_look_up_writes_only_into_its_place() -> None:
    batch = np.full((2, 40, 40, 3), 7, np.float32)
    wide = RNG.integers(0, 256, (20, 60, 3), np.uint8)
    table = channel_table(Normalisation().scaled)

    look_up(wide[:, 10:40], table, batch[1, :20, :30])

    assert np.array_equal(batch[1, :20, :30], Normalisation().scaled(wide[:, 10:40]))
    batch[1, :20, :30] = 7
    assert (batch == 7).all()
