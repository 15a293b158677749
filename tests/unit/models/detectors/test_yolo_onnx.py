"""Test that YOLO exports of every layout give the same boxes in pixels, and that files that do not
fit are refused."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from skinbatch.config import ModelSettings
from skinbatch.errors import ModelOutputError, PackError
from skinbatch.models.build import build_detector
from skinbatch.models.detectors.yolo_onnx import YoloOnnxDetector, letterbox, recognise
from skinbatch.models.stages import DetectorStage
from skinbatch.types import Detections
from tests.unit.models.onnx_files import FILE_ROWS, GREEN, RED, SquareYolo, export, photo_with, yolo

LAYOUTS = ("v5", "v8", "nms")
HASH = "0" * 64


def stage_of(path: Path, given: dict[str, Any] | None = None, **fields: Any) -> DetectorStage:
    return DetectorStage(
        arch="yolo-onnx", sha256=HASH, **(recognise(path, given).fields | (given or {}) | fields)
    )


def detector_of(
    path: Path, settings: ModelSettings | None = None, **fields: Any
) -> YoloOnnxDetector:
    return YoloOnnxDetector(path, stage_of(path, **fields), settings or ModelSettings())


def found_in(found: Detections) -> list[tuple[list[float], int]]:
    return sorted(
        (box.round(2).tolist(), int(label))
        for box, label in zip(found.xyxy, found.labels, strict=True)
    )


class Constant(nn.Module):
    """Give the same rows for every photo. x: (N, 3, H, W)."""

    rows: Tensor

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor(rows))

    def forward(self, x: Tensor) -> Tensor:
        return self.rows[None] + 0 * x.mean((1, 2, 3), keepdim=True)[..., 0]


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def path(layout: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yolo(tmp_path_factory.mktemp("yolo") / f"{layout}.onnx", layout)


def test_the_file_says_its_layout_classes_and_size(layout: str, path: Path) -> None:
    found = recognise(path).fields
    assert (found["layout"], found["classes"], found["size"]) == (layout, ("papule", "pustule"), 64)


def test_boxes_are_those_of_the_squares_and_suppression_leaves_one_each(path: Path) -> None:
    photo = photo_with(64, 64, [(16, 20, 16, RED), (40, 36, 16, GREEN), (40, 4, 16, RED)])
    (found,) = detector_of(path)([photo])
    assert found_in(found) == [([16, 20, 32, 36], 0), ([40, 4, 56, 20], 0), ([40, 36, 56, 52], 1)]
    np.testing.assert_allclose(found.scores, 1, atol=1e-3)
    assert not found.saturated


@pytest.mark.parametrize(
    ("height", "width"), [(128, 96), (96, 128), (128, 128), (64, 40), (40, 64)]
)
def test_boxes_of_other_sizes_and_proportions_come_back_in_pixels_of_the_photo(
    path: Path, height: int, width: int
) -> None:
    scale = max(height, width) // 64
    x, y, side = 16 * scale, 8 * scale, 16 * scale
    (found,) = detector_of(path)([photo_with(height, width, [(x, y, side, RED)])])
    assert found_in(found) == [([x, y, x + side, y + side], 0)]


def test_a_small_photo_is_enlarged_as_far_as_the_stage_allows(path: Path) -> None:
    photo = photo_with(32, 32, [(8, 8, 8, RED)])
    (found,) = detector_of(path)([photo])
    np.testing.assert_allclose(found.xyxy, [[8, 8, 16, 16]], atol=0.01)
    (missed,) = detector_of(path, max_upscale=1.0)([photo])
    assert len(missed) == 0  # this network does not see squares of 8 pixels


def test_photos_of_a_batch_do_not_change_each_other(path: Path) -> None:
    detector = detector_of(path)
    photos = [
        photo_with(64, 64, [(16, 20, 16, RED)]),
        photo_with(128, 96, [(16, 32, 32, GREEN)]),
        photo_with(1, 1, []),
        photo_with(64, 64, [(40, 40, 16, RED), (4, 4, 16, RED)]),
    ]
    for photo, found in zip(photos, detector(photos), strict=True):
        assert found_in(found) == found_in(detector([photo])[0])
    assert detector([]) == []


def test_threads_share_a_detector(path: Path) -> None:
    detector = detector_of(path)
    photos = [photo_with(64, 64, [(4 * i, 4 * i, 16, RED)]) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda photo: detector([photo])[0], photos * 5))
    for i, one in enumerate(found):
        at = 4 * (i % 12)
        assert found_in(one) == [([at, at, at + 16, at + 16], 0)]


def test_half_precision_files_are_fed_halves(layout: str, tmp_path: Path) -> None:
    path = yolo(tmp_path / "half.onnx", layout, half=True)
    (found,) = detector_of(path)([photo_with(64, 64, [(16, 20, 16, RED)])])
    assert found_in(found) == [([16, 20, 32, 36], 0)]


@pytest.mark.parametrize("batch", [1, 3])
def test_files_of_a_fixed_batch_take_any_number_of_photos(tmp_path: Path, batch: int) -> None:
    detector = detector_of(yolo(tmp_path / "fixed.onnx", "v8", batch=batch))
    photos = [photo_with(64, 64, [(8 * i, 8, 16, RED)]) for i in range(5)]
    assert [found_in(found) for found in detector(photos)] == [
        [([8 * i, 8, 8 * i + 16, 24], 0)] for i in range(5)
    ]


def test_files_of_any_input_size_take_that_of_their_metadata_or_of_the_stage(
    tmp_path: Path,
) -> None:
    class AnySize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.yolo = SquareYolo(1, "v8")

        def forward(self, x: Tensor) -> Tensor:
            seen = (
                (nn.functional.avg_pool2d(self.yolo.colours(x).clamp(0, 1), 16, 4) - 0.6) / 0.4
            ).clamp(0, 1)
            columns = torch.ones_like(seen).cumsum(3) * 4 + 4
            rows = torch.ones_like(seen).cumsum(2) * 4 + 4
            side = torch.full_like(seen, 16)
            return torch.cat([columns, rows, side, side, seen], 1).flatten(2)

    written = {"names": "['acne']", "imgsz": "[96, 96]", "stride": "32"}
    path = export(
        AnySize(), tmp_path / "any.onnx", (1, 3, 64, 64), open_axes=(0, 2, 3), metadata=written
    )
    assert (recognise(path).fields["size"], recognise(path, {"size": 160}).fields["size"]) == (
        96,
        160,
    )
    for size in (96, 160):
        (found,) = YoloOnnxDetector(path, stage_of(path, {"size": size}), ModelSettings())(
            [photo_with(size, size, [(60, 40, 16, RED)])]
        )
        assert found_in(found) == [([60, 40, 76, 56], 0)]
    with pytest.raises(PackError, match="metadata `stride` is 32; size must be a multiple"):
        recognise(path, {"size": 100})


def test_an_input_that_is_no_square_keeps_its_shape(tmp_path: Path) -> None:
    path = export(
        SquareYolo(1, "v8"), tmp_path / "wide.onnx", (1, 3, 64, 128), metadata={"names": "['acne']"}
    )
    assert recognise(path).fields["size"] == 128
    (found,) = detector_of(path)([photo_with(64, 64, [(12, 20, 16, RED)])])
    assert found_in(found) == [([12, 20, 28, 36], 0)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_class_files_are_told_apart_although_two_layouts_have_six_numbers(
    layout: str, tmp_path: Path
) -> None:
    path = yolo(tmp_path / "one.onnx", layout, classes=["acne"])
    assert recognise(path).fields["layout"] == layout
    (found,) = detector_of(path)([photo_with(64, 64, [(16, 20, 16, RED)])])
    assert found_in(found) == [([16, 20, 32, 36], 0)]


def test_a_file_that_says_it_suppresses_is_believed(tmp_path: Path) -> None:
    rows = [[1.0, 2.0, 30.0, 40.0, 0.9, 1.0]] * 3
    metadata = {"names": "['acne']", "args": "{'batch': 1, 'nms': True}"}
    path = export(Constant(rows), tmp_path / "x.onnx", (1, 3, 64, 64), metadata=metadata)
    assert recognise(path).fields["layout"] == "nms"


def test_classes_the_file_does_not_name_are_the_users(tmp_path: Path) -> None:
    path = yolo(tmp_path / "x.onnx", "v5", metadata={"author": "someone"})
    with pytest.raises(
        PackError, match=r"metadata `names` is missing; give the classes.*--classes"
    ):
        recognise(path)
    assert recognise(path, {"classes": ("papule", "pustule")}).fields["layout"] == "v5"


@pytest.mark.parametrize("layout", ["v5", "v8"])
def test_another_number_of_classes_is_refused_with_the_output(tmp_path: Path, layout: str) -> None:
    path = yolo(tmp_path / "two.onnx", layout)
    with pytest.raises(
        PackError, match=r"output `output0` is N x .*; with 3 classes a YOLO export is"
    ):
        recognise(path, {"classes": ("a", "b", "c")})
    stage = stage_of(path).model_copy(update={"classes": ("a", "b", "c")})
    with pytest.raises(PackError, match=rf"output `output0`.*with 3 classes layout `{layout}`"):
        YoloOnnxDetector(path, stage, ModelSettings())


def test_another_layout_and_another_size_are_refused(path: Path, layout: str) -> None:
    other = "v8" if layout != "v8" else "v5"
    with pytest.raises(PackError, match=f"output `output0`.*layout `{other}`"):
        YoloOnnxDetector(path, stage_of(path).model_copy(update={"layout": other}), ModelSettings())
    with pytest.raises(PackError, match=r"input `images` is .* x 3 x 64 x 64, but size is 128"):
        YoloOnnxDetector(path, stage_of(path).model_copy(update={"size": 128}), ModelSettings())


def test_a_segmentation_export_is_refused(tmp_path: Path) -> None:
    class WithMasks(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.flatten(2)[:, :, :38].transpose(1, 2), x[:, :1]

    path = export(
        WithMasks(),
        tmp_path / "seg.onnx",
        (1, 3, 64, 64),
        metadata={"names": "['a']"},
        outputs=("output0", "output1"),
    )
    with pytest.raises(PackError, match=r"`output0` \(1 x 38 x 3\), `output1`"):
        recognise(path)
    named = yolo(tmp_path / "task.onnx", "v8", metadata={"names": "['a', 'b']", "task": "segment"})
    with pytest.raises(PackError, match="metadata `task` is `segment`"):
        recognise(named)


def test_the_raw_maps_of_the_first_yolov5_exports_are_left_alone(tmp_path: Path) -> None:
    class WithMaps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.yolo = SquareYolo(1, "v5")

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.yolo(x), x[:, None].mean((3, 4), keepdim=True)

    path = export(
        WithMaps(),
        tmp_path / "old.onnx",
        (1, 3, 64, 64),
        metadata={"names": "['a']"},
        outputs=("output", "maps"),
    )
    (found,) = detector_of(path)([photo_with(64, 64, [(16, 20, 16, RED)])])
    assert found_in(found) == [([16, 20, 32, 36], 0)]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ([10.0, 10.0, 5.0, 5.0, float("nan")], "NaN or infinite numbers \\(output `output0`\\)"),
        ([10.0, float("inf"), 5.0, 5.0, 0.9], "NaN or infinite"),
        ([10.0, 10.0, 5.0, 5.0, 7.5], "scores from .* to 7.5"),
    ],
)
def test_numbers_that_cannot_be_are_an_error_of_the_model(
    tmp_path: Path, row: list[float], complaint: str
) -> None:
    class Broken(nn.Module):
        """Work until it sees white."""

        def forward(self, x: Tensor) -> Tensor:
            worst = torch.tensor(row).nan_to_num(0, 0)[None, :, None].expand(1, 5, 7)
            times = (x.amax((1, 2, 3)) > 0.99).to(x.dtype)[:, None, None]
            wrong = torch.tensor(row)[None, :, None] - worst[:, :, :1]
            return worst * times + torch.log(1 - times * float(not np.isfinite(row).all())) * (
                wrong != 0
            )

    path = export(
        Broken(), tmp_path / "broken.onnx", (1, 3, 64, 64), metadata={"names": "['acne']"}
    )
    detector = detector_of(path)
    assert len(detector([photo_with(64, 64, [])])[0]) == 0
    with pytest.raises(ModelOutputError, match=complaint):
        detector([np.full((64, 64, 3), 255, np.uint8)])


def test_a_class_that_is_none_is_an_error_of_the_model(tmp_path: Path) -> None:
    rows = [[1.0, 2.0, 30.0, 40.0, 0.9, 5.0]]
    path = export(
        Constant(rows), tmp_path / "x.onnx", (1, 3, 64, 64), metadata={"names": "['a', 'b']"}
    )
    detector = detector_of(path)
    with pytest.raises(ModelOutputError, match="class 5 of 2"):
        detector([photo_with(64, 64, [])])


def test_the_cap_and_the_floor_hold(path: Path) -> None:
    photo = photo_with(64, 64, [(0, 0, 16, RED), (0, 40, 16, RED), (40, 0, 16, GREEN)])
    (found,) = detector_of(path, ModelSettings(max_boxes=2))([photo])
    assert len(found) == 2 and found.saturated
    (found,) = detector_of(path, ModelSettings(max_boxes=4))([photo])
    assert len(found) == 3 and not found.saturated
    faint = photo_with(64, 64, [(8, 8, 14, RED)])  # 14 of 16 pixels each way: 0.41
    assert len(detector_of(path, ModelSettings(score_floor=0.3))([faint])[0]) == 1
    assert len(detector_of(path, ModelSettings(score_floor=0.5))([faint])[0]) == 0


def test_a_file_that_fills_all_its_rows_may_have_left_boxes_out(tmp_path: Path) -> None:
    rows = [[20.0 * i, 0.0, 20.0 * i + 10, 10.0, 0.9, 0.0] for i in range(3)]
    metadata = {"names": "['a', 'b']"}
    full = detector_of(
        export(Constant(rows), tmp_path / "full.onnx", (1, 3, 64, 64), metadata=metadata)
    )
    assert full([photo_with(64, 64, [])])[0].saturated
    some = detector_of(
        export(
            Constant([*rows, [0.0] * 6]), tmp_path / "some.onnx", (1, 3, 64, 64), metadata=metadata
        )
    )
    (found,) = some([photo_with(64, 64, [])])
    assert len(found) == 3 and not found.saturated
    assert FILE_ROWS > 3


def test_boxes_of_two_classes_do_not_suppress_each_other(tmp_path: Path) -> None:
    rows = [
        [5.0, 5.0, 45.0, 45.0, 0.9, 0.0],
        [5.0, 5.0, 44.0, 45.0, 0.8, 1.0],
        [5.0, 5.0, 43.0, 45.0, 0.7, 0.0],
    ]
    path = export(
        Constant(rows), tmp_path / "x.onnx", (1, 3, 64, 64), metadata={"names": "['a', 'b']"}
    )
    (found,) = detector_of(path)([photo_with(64, 64, [])])
    assert found.labels.tolist() == [0, 1]


def test_the_letterbox_is_centred_grey_and_keeps_proportions() -> None:
    placed = letterbox(np.full((40, 100, 3), 7, np.uint8), 64, 64, 10.0)
    assert placed.offset == (0, 19) and placed.pixels.shape == (64, 64, 3)
    assert (placed.pixels[19:45] == 7).all()
    assert (placed.pixels[:19] == 114).all() and (placed.pixels[45:] == 114).all()


def test_a_pack_builds_it(path: Path) -> None:
    detector = build_detector(stage_of(path), path, "cpu", ModelSettings())
    (found,) = detector([photo_with(64, 64, [(16, 20, 16, RED)])])
    assert found_in(found) == [([16, 20, 32, 36], 0)]
    assert onnx.load(path).graph.input[0].name == "images"
