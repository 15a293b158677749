"""Test large photos in tiles: every planted lesion is counted once, wherever the seams are."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from skinbatch.config import ModelSettings
from skinbatch.models.build import build_detector
from skinbatch.models.detectors.mmdet.detector import MMDetDetector, build_model
from skinbatch.models.detectors.tiling import TiledDetector, tiles
from skinbatch.models.fake import FakeDetector
from skinbatch.models.stages import DetectorStage, TilingSection
from skinbatch.types import Detections
from tests.unit.models.support import DETECTOR, seeded

RED = (230, 40, 50)
Photo = NDArray[np.uint8]
Box = tuple[int, int, int, int]


def photo_with(boxes: Sequence[Box], height: int = 300, width: int = 400) -> Photo:
    photo = np.full((height, width, 3), (205, 160, 140), np.uint8)
    for x1, y1, x2, y2 in boxes:
        photo[y1:y2, x1:x2] = RED
    return photo


class Recording:
    """Wrap any detector and remember its inputs."""

    def __init__(self, inner: FakeDetector) -> None:
        self.inner, self.classes, self.input = inner, inner.classes, inner.input
        self.calls: list[list[Photo]] = []

    def __call__(self, photos: Sequence[Photo]) -> list[Detections]:
        self.calls.append(list(photos))
        return self.inner(photos)


class Clumsy(FakeDetector):
    """Detect as real detectors do: boxes are off by up to `off` of their size, and thin slivers are
    taken for wider ones."""

    def __init__(self, off: float, seed: int) -> None:
        super().__init__(("acne",))
        self._off, self._seed = off, seed

    def _detect(self, photo: Photo) -> Detections:
        exact = super()._detect(photo)
        height, width = photo.shape[:2]
        random = np.random.default_rng([self._seed, *photo.tobytes()[:: photo.size // 16]])
        size = np.tile(exact.xyxy[:, 2:] - exact.xyxy[:, :2], 2)
        xyxy = exact.xyxy + random.uniform(-self._off, self._off, size.shape) * size
        xyxy[:, 2:] = np.maximum(xyxy[:, 2:], xyxy[:, :2] + 4)
        xyxy = np.clip(xyxy, 0, [width, height, width, height])
        scores = np.sort(random.uniform(0.3, 1, len(xyxy)).astype(np.float32))[::-1]
        return Detections(xyxy.astype(np.float32), scores, exact.labels)


def tiled(
    side: int = 128, overlap: float = 0.25, max_boxes: int = 500, above: int = 200
) -> TiledDetector:
    return TiledDetector(
        FakeDetector(("acne",), max_boxes=max_boxes),
        TilingSection(above=above, tile=side, overlap=overlap),
        0.5,
        max_boxes,
    )


def boxes_of(found: Detections) -> list[Box]:
    return sorted(tuple(int(v) for v in box) for box in found.xyxy)  # type: ignore[misc]


@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    side=st.integers(32, 256),
    overlap=st.floats(0.05, 0.5),
)
def test_tiles_cover_the_photo_and_share_at_least_the_overlap(
    height: int, width: int, side: int, overlap: float
) -> None:
    frames = tiles((height, width), side, overlap)
    for first, last, length in ((0, 2, width), (1, 3, height)):
        spans = sorted({(frame[first], frame[last]) for frame in frames})
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert all(end - start == min(side, length) for start, end in spans)
        assert all(
            end - start >= overlap * side for (_, end), (start, _) in itertools.pairwise(spans)
        )


def test_no_more_tiles_than_the_overlap_needs() -> None:
    assert len(tiles((1024, 1024), 640, 0.2)) == 4
    assert len(tiles((640, 1152), 640, 0.2)) == 2
    assert tiles((100, 640), 640, 0.2) == [(0, 0, 640, 100)]


@pytest.mark.parametrize(
    "at", [(88, 60), (100, 60), (60, 100), (110, 105), (96, 96), (97, 127), (127, 127), (128, 96)]
)
def test_a_lesion_on_a_seam_or_on_the_corner_of_four_tiles_is_counted_once(
    at: tuple[int, int],
) -> None:
    x, y = at
    assert boxes_of(tiled()([photo_with([(x, y, x + 20, y + 20)])])[0]) == [(x, y, x + 20, y + 20)]


def test_lesions_larger_than_the_overlap_are_put_together_again() -> None:
    lesions = [(70, 20, 190, 70), (250, 60, 300, 290), (10, 80, 390, 100)]
    for lesion in lesions:
        assert boxes_of(tiled()([photo_with([lesion])])[0]) == [lesion]


def test_a_lesion_larger_than_a_tile_is_one() -> None:
    lesion = (30, 20, 380, 270)
    assert boxes_of(tiled()([photo_with([lesion])])[0]) == [lesion]


def test_neighbours_on_the_two_sides_of_a_seam_are_two() -> None:
    seam = tiles((300, 400), 128, 0.25)[0][2]
    lesions = [
        (seam - 21, 40, seam - 1, 60),
        (seam + 1, 40, seam + 21, 60),
        (seam - 21, 62, seam + 10, 80),
    ]
    assert boxes_of(tiled()([photo_with(lesions)])[0]) == sorted(lesions)


def test_two_large_neighbours_across_one_seam_are_two() -> None:
    lesions = [(60, 20, 180, 60), (60, 62, 180, 100)]
    assert boxes_of(tiled()([photo_with(lesions)])[0]) == sorted(lesions)


@st.composite
def planted(draw: st.DrawFn) -> tuple[list[Box], int, int, int, float]:
    """Return squares at least two pixels apart, each smaller than the overlap, with a photo and tiles to match."""
    side = draw(st.integers(48, 160))
    overlap = draw(st.floats(0.1, 0.5))
    height, width = draw(st.integers(20, 420)), draw(st.integers(202, 420))
    largest = max(2, int(side * overlap))
    taken = np.zeros((height + 4, width + 4), bool)
    boxes = []
    for _ in range(draw(st.integers(0, 25))):
        w, h = (min(draw(st.integers(1, largest)), length) for length in (width, height))
        x, y = draw(st.integers(0, width - w)), draw(st.integers(0, height - h))
        if not taken[y : y + h + 4, x : x + w + 4].any():
            taken[y + 2 : y + h + 2, x + 2 : x + w + 2] = True
            boxes.append((x, y, x + w, y + h))
    return boxes, height, width, side, overlap


@settings(max_examples=300, deadline=None)
@given(case=planted())
def test_random_lesions_are_each_found_once_whatever_the_tiles(
    case: tuple[list[Box], int, int, int, float],
) -> None:
    boxes, height, width, side, overlap = case
    assert boxes_of(tiled(side, overlap)([photo_with(boxes, height, width)])[0]) == sorted(boxes)


@settings(max_examples=150, deadline=None)
@given(
    x=st.integers(0, 250),
    y=st.integers(0, 150),
    w=st.integers(33, 150),
    h=st.integers(33, 150),
    side=st.integers(64, 128),
)
def test_a_random_large_lesion_is_one_box_over_all_of_it(
    x: int, y: int, w: int, h: int, side: int
) -> None:
    assert boxes_of(tiled(side)([photo_with([(x, y, x + w, y + h)])])[0]) == [(x, y, x + w, y + h)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(case=planted(), seed=st.integers(0, 1000))
def test_a_detector_that_is_a_little_off_counts_as_many(
    case: tuple[list[Box], int, int, int, float], seed: int
) -> None:
    boxes, height, width, side, overlap = case
    boxes = [box for box in boxes if min(box[2] - box[0], box[3] - box[1]) >= 8]
    apart = [box for i, box in enumerate(boxes) if all(_far(box, other) for other in boxes[:i])]
    detector = TiledDetector(
        Clumsy(0.08, seed), TilingSection(above=200, tile=side, overlap=overlap), 0.5, 500
    )
    assert len(detector([photo_with(apart, height, width)])[0]) == len(apart)


def _far(a: Box, b: Box) -> bool:
    margin = 12
    return (
        a[2] + margin < b[0] or b[2] + margin < a[0] or a[3] + margin < b[1] or b[3] + margin < a[1]
    )


def test_photos_that_are_not_large_go_through_as_they_are() -> None:
    recording = Recording(FakeDetector(("acne",)))
    detector = TiledDetector(recording, TilingSection(above=400, tile=128), 0.5, 500)
    small, large = photo_with([(88, 60, 108, 80)]), photo_with([(88, 60, 108, 80)], 300, 401)
    found = detector([small, large, small])
    assert recording.calls[0][0] is small and recording.calls[0][1] is small
    for one in found:
        assert boxes_of(one) == [(88, 60, 108, 80)]
    assert detector([]) == []


def test_tiles_of_all_photos_are_run_together_a_few_at_a_time_at_native_resolution() -> None:
    recording = Recording(FakeDetector(("acne",)))
    detector = TiledDetector(
        recording, TilingSection(above=200, tile=128, overlap=0.25), 0.5, 500, batch=8
    )
    photos = [photo_with([(i, i, i + 9, i + 9)]) for i in (50, 100)]
    found = detector(photos)
    assert [len(call) for call in recording.calls] == [8, 8, 8]  # 2 photos of 3 x 4 tiles
    assert {tile.shape for call in recording.calls for tile in call} == {(128, 128, 3)}
    assert [boxes_of(one) for one in found] == [[(50, 50, 59, 59)], [(100, 100, 109, 109)]]


def test_classes_are_merged_each_for_itself() -> None:
    class TwoClasses(FakeDetector):
        """Give two boxes, of different classes, for every lesion."""

        def _detect(self, photo: Photo) -> Detections:
            one = super()._detect(photo)
            labels = np.repeat([0, 1], len(one)).astype(np.int64)
            return Detections(np.tile(one.xyxy, (2, 1)), np.tile(one.scores, 2), labels)

    detector = TiledDetector(
        TwoClasses(("a", "b")), TilingSection(above=200, tile=128, overlap=0.25), 0.5, 500
    )
    (found,) = detector([photo_with([(70, 20, 190, 70)])])
    assert boxes_of(found) == [(70, 20, 190, 70)] * 2 and sorted(found.labels.tolist()) == [0, 1]


def test_saturation_of_a_tile_or_of_the_photo_is_told() -> None:
    many = [(x, y, x + 4, y + 4) for x in range(2, 60, 8) for y in range(2, 60, 8)]
    (found,) = tiled(max_boxes=50)([photo_with(many)])
    assert found.saturated and len(found) == 50
    few = [(x, 2, x + 4, 6) for x in range(2, 390, 40)]
    (found,) = tiled(max_boxes=10)([photo_with(few)])
    assert found.saturated and len(found) == 10
    assert not tiled(max_boxes=11)([photo_with(few)])[0].saturated


@pytest.fixture(scope="module")
def yolox() -> MMDetDetector:
    spec = dataclasses.replace(DETECTOR, score_floor=0.0, max_boxes=50)
    return MMDetDetector(spec, seeded(build_model, spec).state_dict())


def test_boxes_of_a_real_network_lie_in_the_photo_best_first(yolox: MMDetDetector) -> None:
    detector = TiledDetector(yolox, TilingSection(above=200, tile=128, overlap=0.25), 0.5, 50)
    photo = np.random.default_rng(0).integers(0, 256, (300, 260, 3), np.uint8)
    (found,) = detector([photo])
    assert len(found) == 50 and found.saturated
    assert (found.xyxy >= 0).all() and (found.xyxy <= (260, 300, 260, 300)).all()
    assert (found.xyxy[:, 2:] > found.xyxy[:, :2]).all() and (np.diff(found.scores) <= 0).all()
    assert found.xyxy[:, 2].max() > 128 and found.xyxy[:, 3].max() > 128


def test_a_tile_as_large_as_the_networks_input_is_not_rescaled(yolox: MMDetDetector) -> None:
    seen: list[tuple[int, ...]] = []
    hook = yolox.model.backbone.register_forward_pre_hook(
        lambda _, args: seen.append(tuple(args[0].shape))
    )
    photo = photo_with([], 230, 230)
    TiledDetector(yolox, TilingSection(above=200, tile=128, overlap=0.2), 0.5, 50, batch=4)([photo])
    hook.remove()
    assert seen == [(4, 3, 128, 128)]


def test_on_a_cpu_photos_of_several_sizes_are_run_one_by_one_with_the_same_boxes(
    yolox: MMDetDetector,
) -> None:
    seen: list[tuple[int, ...]] = []
    hook = yolox.model.backbone.register_forward_pre_hook(
        lambda _, args: seen.append(tuple(args[0].shape))
    )
    photos = [photo_with([], width, 100) for width in (100, 99, 60)]
    together = yolox(photos)
    assert len(seen) == 3
    yolox([photos[0], photos[0]])
    assert seen[3][0] == 2
    hook.remove()
    for found, photo in zip(together, photos, strict=True):
        (alone,) = yolox([photo])
        assert len(alone.xyxy) > 0
        np.testing.assert_array_equal(found.xyxy, alone.xyxy)


def test_threads_share_a_detector(yolox: MMDetDetector) -> None:
    detector = TiledDetector(yolox, TilingSection(above=100, tile=64, overlap=0.25), 0.5, 50)
    photos = [np.random.default_rng(i).integers(0, 256, (120, 110, 3), np.uint8) for i in range(4)]
    alone = [detector([photo])[0] for photo in photos]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(
            pool.map(lambda p: detector([p])[0], photos), alone, strict=True
        ):
            np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=0.01)


def test_a_stage_with_tiling_is_built_tiled() -> None:
    stage = DetectorStage(
        arch="fake-detector",
        classes=("acne",),
        tiling=TilingSection(above=200, tile=128, overlap=0.25),
    )
    detector = build_detector(stage, Path("fakes need none"), "cpu", ModelSettings())
    assert (
        isinstance(detector, TiledDetector)
        and detector.classes == ("acne",)
        and detector.input == "crop"
    )
    assert boxes_of(detector([photo_with([(88, 60, 128, 80)])])[0]) == [(88, 60, 128, 80)]


def test_a_tile_is_no_larger_than_the_network_sees_unless_asked_for() -> None:
    stage = DetectorStage(
        arch="fake-detector", classes=("acne",), size=256, tiling=TilingSection(above=512)
    )
    for short_side, tile in ((None, 256), (160, 160), (400, 256)):
        shorter = stage.model_copy(update={"short_side": short_side})
        detector = build_detector(shorter, Path("fakes need none"), "cpu", ModelSettings())
        assert isinstance(detector, TiledDetector) and detector._tile == tile
