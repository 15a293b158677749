"""Test mmcv's operators without its compiled extension, against cases worked out by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from skinbatch.errors import UnsupportedOpError
from skinbatch.models.detectors.mmdet import operators

operators.install()


def test_nms_keeps_the_best_of_boxes_that_overlap_more_than_the_threshold() -> None:
    from mmcv.ops import nms

    # The second overlaps the first by 50 of 150 pixels, IoU 1/3; the third by 80 of 120, IoU 2/3; the fourth is apart.
    boxes = torch.tensor(
        [[0, 0, 10, 10], [5, 0, 15, 10], [2, 0, 12, 10], [40, 40, 50, 50]], dtype=torch.float32
    )
    scores = torch.tensor([0.9, 0.8, 0.7, 0.95])
    kept, indices = nms(boxes, scores, iou_threshold=0.5)
    assert indices.tolist() == [3, 0, 1]
    np.testing.assert_allclose(kept[:, 4].numpy(), [0.95, 0.9, 0.8])
    assert nms(boxes, scores, iou_threshold=0.3)[1].tolist() == [3, 0]


def test_nms_at_exactly_the_threshold_keeps_both() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 5]], dtype=torch.float32)
    assert operators.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0, 1]
    assert operators.nms(boxes, torch.tensor([0.9, 0.8]), 0.49).tolist() == [0]


def test_nms_with_offset_counts_the_last_pixel_as_part_of_the_box() -> None:
    # They share a column of pixels: IoU 0 as lengths; with the offset 2 x 10 and 2 x 10 pixels share 10 of 30.
    boxes = torch.tensor([[0, 0, 1, 9], [1, 0, 2, 9]], dtype=torch.float32)
    scores = torch.tensor([0.5, 0.6])
    assert operators.nms(boxes, scores, 0.3, offset=0).tolist() == [1, 0]
    assert operators.nms(boxes, scores, 0.3, offset=1).tolist() == [1]
    assert operators.nms(boxes, scores, 0.34, offset=1).tolist() == [1, 0]


def test_nms_of_no_boxes_is_empty() -> None:
    assert operators.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_batched_nms_leaves_boxes_of_other_classes_alone() -> None:
    from mmcv.ops import batched_nms

    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 10], [1, 0, 11, 10]], dtype=torch.float32)
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 0])
    _, kept = batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.5})
    assert kept.tolist() == [0, 1]


@pytest.fixture
def ramp() -> torch.Tensor:
    """Return (1, 2, 16, 16): channel 0 is the column, channel 1 ten times the row.

    Bilinear values are exact inside.
    """
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    return torch.stack((columns, 10 * rows))[None]


def test_roi_align_of_a_ramp_gives_the_centres_of_the_bins(ramp: torch.Tensor) -> None:
    from mmcv.ops import RoIAlign

    # x 4..8 in two bins has centres 5 and 7; aligned pixels have their centres at .5, so the ramp is lower by .5.
    roi = torch.tensor([[0.0, 4.0, 2.0, 8.0, 10.0]])
    old = RoIAlign(output_size=2, spatial_scale=1.0, sampling_ratio=2, aligned=False)(ramp, roi)
    np.testing.assert_allclose(old[0, 0].numpy(), [[5, 7], [5, 7]], atol=1e-5)
    np.testing.assert_allclose(old[0, 1].numpy(), [[40, 40], [80, 80]], atol=1e-4)
    aligned = RoIAlign(output_size=2, spatial_scale=1.0, sampling_ratio=2, aligned=True)(ramp, roi)
    np.testing.assert_allclose(aligned[0, 0].numpy(), [[4.5, 6.5], [4.5, 6.5]], atol=1e-5)
    np.testing.assert_allclose(aligned[0, 1].numpy(), [[35, 35], [75, 75]], atol=1e-4)


def test_roi_align_scales_boxes_to_the_feature_map_and_takes_the_image_of_the_roi(
    ramp: torch.Tensor,
) -> None:
    from mmcv.ops import RoIAlign

    features = torch.cat((ramp, -ramp))
    roi = torch.tensor([[1.0, 16.0, 8.0, 32.0, 40.0]])  # a quarter of it: x 4..8, y 2..10
    pooled = RoIAlign(output_size=(1, 2), spatial_scale=0.25, sampling_ratio=0, aligned=True)(
        features, roi
    )
    np.testing.assert_allclose(pooled[0, 0].numpy(), [[-4.5, -6.5]], atol=1e-5)
    np.testing.assert_allclose(pooled[0, 1].numpy(), [[-55, -55]], atol=1e-4)


def test_roi_align_without_alignment_makes_small_rois_one_pixel_wide(ramp: torch.Tensor) -> None:
    from mmcv.ops import RoIAlign

    roi = torch.tensor([[0.0, 4.0, 4.0, 4.2, 4.2]])
    old = RoIAlign(output_size=1, spatial_scale=1.0, sampling_ratio=1, aligned=False)(ramp, roi)
    aligned = RoIAlign(output_size=1, spatial_scale=1.0, sampling_ratio=1, aligned=True)(ramp, roi)
    assert old[0, 0].item() == pytest.approx(4.5)
    assert aligned[0, 0].item() == pytest.approx(3.6)


def test_maximum_pooling_is_refused_not_averaged(ramp: torch.Tensor) -> None:
    from mmcv.ops import RoIAlign

    with pytest.raises(UnsupportedOpError, match="max"):
        RoIAlign(output_size=1, pool_mode="max")(ramp, torch.tensor([[0.0, 4.0, 4.0, 8.0, 8.0]]))


def test_any_other_op_names_itself() -> None:
    from mmcv.ops import soft_nms

    with pytest.raises(UnsupportedOpError, match="`softnms`"):
        soft_nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([0.5]))


def test_the_stand_in_wins_over_a_compiled_extension_and_mmdet_is_imported_in_silence() -> None:
    program = """
import sys
import mmcv
compiled = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "mmcv._ext":
            compiled.append(name)
        return None
sys.meta_path.insert(0, Finder())
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.detectors.mmdet.detector import build_model
build_model(DetectorSpec("yolox-tiny", ("acne",)))
assert type(sys.modules["mmcv._ext"]).__module__ == "skinbatch.models.detectors.mmdet.operators"
assert compiled == [], compiled
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_compiled_extension_that_is_already_loaded_is_an_error() -> None:
    program = """
import sys, types
sys.modules["mmcv._ext"] = types.ModuleType("mmcv._ext")
from skinbatch.models.detectors.mmdet import operators
operators.install()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert "UnsupportedOpError" in done.stderr and "before mmcv" in done.stderr


def test_mmengine_can_ask_whether_the_operators_are_there_as_mmdet_s_inferencer_does() -> None:
    from mmengine.model import revert_sync_batchnorm

    module = revert_sync_batchnorm(torch.nn.Sequential(torch.nn.BatchNorm2d(2)))

    assert isinstance(module[0], torch.nn.BatchNorm2d)
