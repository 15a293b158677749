"""Test any mmdet detector as a detector of a pack: what is used of its config, and what is refused."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skinbatch.config import ModelSettings
from skinbatch.errors import ModelOutputError, PackError
from skinbatch.models.build import build_detector
from skinbatch.models.detectors.mmdet.config_file import read_file
from skinbatch.models.detectors.mmdet.detector import MMDetDetector, at_network_scale, build_model
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.detectors.mmdet.user_config import read_config, with_settings
from skinbatch.models.manifest import DETECTOR_CONFIG
from skinbatch.models.stages import DetectorStage
from skinbatch.models.weights import save_weights
from tests.unit.models.support import random_detector_state

CLASSES = ("comedone", "papule", "pustule", "nodule")
RETINANET = """
num = 4
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], bgr_to_rgb=True,
        pad_size_divisor=32, batch_augments=[dict(type='BatchSyncRandomResize')]),
    backbone=dict(type='ResNet', depth=18, base_channels=16, num_stages=4, out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type='SyncBN', requires_grad=True), style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    neck=dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=32, start_level=1, num_outs=3),
    bbox_head=dict(type='RetinaHead', num_classes=num, in_channels=32, stacked_convs=1, feat_channels=32,
        anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32])),
    train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)),
    test_cfg=dict(nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=100))
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs'),
]
test_dataloader = dict(batch_size=1, dataset=dict(type='CocoDataset',
    metainfo=dict(classes=('comedone', 'papule', 'pustule', 'nodule')), pipeline=test_pipeline))
"""
KINDS = (
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py",
    "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
    "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    "conditional_detr/conditional-detr_r50_8xb2-50e_coco.py",
)


def written(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write the config above, with changes."""
    text = RETINANET
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = folder / "my.py"
    path.write_text(text)
    return path


def test_a_config_gives_the_model_and_how_photos_are_prepared(tmp_path: Path) -> None:
    model, fields = read_config(written(tmp_path))
    assert fields == {
        "classes": list(CLASSES),
        "size": 1333,
        "short_side": 800,
        "max_upscale": 64.0,
        "mean": [1.0, 2.0, 3.0],
        "std": [4.0, 5.0, 6.0],
        "bgr": False,
        "nms_iou": 0.6,
    }
    text = json.dumps(model)
    assert json.loads(text) == model
    assert "Pretrained" not in text and "init_cfg" not in text and "data_preprocessor" not in model
    assert model["backbone"]["norm_cfg"]["type"] == "BN"
    stage = {"arch": "mmdet", "sha256": "0" * 64, "config_sha256": "0" * 64}
    assert DetectorStage.model_validate_json(json.dumps(stage | fields)).short_side == 800


def test_yolox_reads_photos_as_they_are_in_grey_squares_and_bgr(mmdet_configs: Path) -> None:
    _, fields = read_config(mmdet_configs / "yolox" / "yolox_s_8xb8-300e_coco.py")
    assert fields == {
        "size": 640,
        "max_upscale": 64.0,
        "padding": 114.0,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "bgr": True,
        "nms_iou": 0.65,
    }


def test_mean_and_std_of_a_bgr_network_are_given_by_rgb_channel(tmp_path: Path) -> None:
    _, fields = read_config(written(tmp_path, ("bgr_to_rgb=True", "bgr_to_rgb=False")))
    assert (fields["mean"], fields["std"], fields["bgr"]) == (
        [3.0, 2.0, 1.0],
        [6.0, 5.0, 4.0],
        True,
    )


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("keep_ratio=True", "keep_ratio=False", "`Resize`: keep_ratio is not True"),
        (", keep_ratio=True", "", "`Resize`: keep_ratio is not True"),
        ("scale=(1333, 800)", "scale_factor=2.0", "`Resize`: scale None is not"),
        ("scale=(1333, 800),", "scale=(9, 9), interpolation='nearest',", "always bilinear"),
        (
            "dict(type='LoadAnnotations', with_bbox=True)",
            "dict(type='RandomCrop', crop_size=9)",
            "`RandomCrop`: is no",
        ),
        (
            "dict(type='LoadAnnotations', with_bbox=True)",
            "dict(type='Pad', size_divisor=32)",
            "`Pad`: does not pad to the square",
        ),
        (
            "backend_args=None",
            "color_type='grayscale'",
            "`LoadImageFromFile`: color_type 'grayscale'",
        ),
        (
            "    dict(type='Resize', scale=(1333, 800), keep_ratio=True),\n",
            "",
            "`Resize`: is missing",
        ),
        ("pipeline=test_pipeline", "pipeline=[]", "XX"),
        (
            "std=[4.0, 5.0, 6.0]",
            "std=[4.0, 0.0, 6.0]",
            r"data_preprocessor\.std is \[4\.0, 0\.0, 6\.0\]",
        ),
        ("mean=[1.0, 2.0, 3.0]", "mean=[1.0]", "data_preprocessor.mean has 1 channels"),
        ("pad_size_divisor=32", "pad_size_divisor=128", "data_preprocessor: must pad with 0"),
        (
            "type='DetDataPreprocessor'",
            "type='ReIDDataPreprocessor'",
            "`ReIDDataPreprocessor` is not supported here",
        ),
        (
            "classes=('comedone', 'papule', 'pustule', 'nodule')",
            "classes=('acne')",
            r"'acne', not a list",
        ),
        ("type='RetinaHead'", "type='MyHead'", "model.bbox_head: type `MyHead` is not in mmdet"),
        (
            "type='FPN'",
            "type='mmpretrain.FPN'",
            "model.neck: type `mmpretrain.FPN` imports code from outside mmdet",
        ),
        (
            "type='FPN'",
            "type='os.system'",
            "model.neck: type `os.system` imports code from outside mmdet",
        ),
        (
            "type='FPN'",
            "_scope_='mmyolo', type='FPN'",
            "model.neck: `_scope_` 'mmyolo' imports code from outside",
        ),
        (
            "type='ResNet'",
            "type='BertModel'",
            "model.backbone: type `BertModel` is from `mmdet.models.language",
        ),
        (
            "type='RetinaNet'",
            "type='Detectron2Wrapper'",
            "model: `Detectron2Wrapper` runs a model of detectron2",
        ),
        (
            "type='nms'",
            "type='soft_nms'",
            "model.test_cfg.nms: type 'soft_nms'; only `nms` is supported",
        ),
        ("type='nms'", "type='print(1)'", r"model.test_cfg.nms: type 'print\(1\)'"),
        (
            "num = 4",
            "num = 4\ncustom_imports = dict(imports=['projects.mine'])",
            "`projects.mine` is code from outside",
        ),
        (
            "bbox_head=dict",
            "mask_head=dict",
            "model.bbox_head is missing: RetinaNet gives no boxes",
        ),
        ("model = dict", "net = dict", "has no `model` with a `type`"),
    ],
)
def test_what_would_change_numbers_or_import_code_is_refused_by_name(
    before: str, after: str, message: str, tmp_path: Path
) -> None:
    path = written(tmp_path, (before, after))
    if message == "XX":  # then the pipeline by name is taken
        assert read_config(path)[1]["size"] == 1333
        return
    with pytest.raises(PackError, match=rf"my\.py: .*{message}"):
        read_config(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "test_dataloader = None\ntest_pipeline = ['Resize']",
            r"test_pipeline\[0\] is 'Resize', not a table",
        ),
        (
            "test_dataloader = None\ntest_pipeline = dict(type='Resize')",
            r"test_pipeline is .*, not a list",
        ),
        ("test_dataloader = [1]", r"test_dataloader is \[1\], not a table"),
        ("test_dataloader['dataset'] = 5", r"test_dataloader\.dataset is 5, not a table"),
        (
            "test_dataloader['dataset'] = dict(pipeline=[3])",
            r"test_dataloader\.dataset\.pipeline\[0\] is 3, not a",
        ),
        (
            "test_dataloader['dataset']['metainfo'] = dict(classes=7)",
            r"metainfo\.classes is 7, not a list of names",
        ),
        ("model['data_preprocessor'] = 'x'", r"model\.data_preprocessor is 'x', not a table"),
        (
            "model['data_preprocessor']['mean'] = 5",
            r"data_preprocessor\.mean is 5, not a list of numbers",
        ),
        (
            "model['data_preprocessor']['std'] = ['a'] * 3",
            r"data_preprocessor\.std is .*, not a list of numbers",
        ),
        ("model['test_cfg'] = [1]", r"model\.test_cfg is \[1\], not a table"),
        ("model['test_cfg'] = dict(rcnn=2)", r"model\.test_cfg\.rcnn is 2, not a table"),
        ("model['test_cfg'] = dict(nms=3)", r"model\.test_cfg\.nms is 3, not a table"),
        (
            "model['test_cfg'] = dict(nms=dict(iou_threshold='x'))",
            r"model\.test_cfg\.nms\.iou_threshold is 'x'",
        ),
        ("model['roi_head'] = 'x'", r"model\.roi_head is 'x', not a table"),
        ("model['bbox_head'] = [1]", r"model\.bbox_head\[0\] is 1, not a table"),
        ("custom_imports = 5", r"custom_imports is 5, not a list"),
        (
            "step = dict(type='Resize', scale=(True, 64), keep_ratio=True)",
            r"`Resize`: scale .*True, 64.* is not",
        ),
        ("step = dict(type='Resize', scale=True, keep_ratio=True)", r"`Resize`: scale True is not"),
    ],
)
def test_a_field_of_another_kind_is_named_with_the_file(
    line: str, message: str, tmp_path: Path
) -> None:
    """Write the config out flat, so that each field can be set in turn."""
    values = read_file(written(tmp_path))
    values["step"] = values["test_pipeline"][1]
    exec(line, {}, values)
    values["test_pipeline"] = (
        [values.pop("step")] if line.startswith("step") else values["test_pipeline"]
    )
    values |= {"test_dataloader": None} if line.startswith("step") else {}
    path = tmp_path / "flat.json"
    path.write_text(json.dumps(values))
    with pytest.raises(PackError, match=rf"flat\.json: .*{message}"):
        read_config(path)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_numbers_and_nesting_beyond_all_bounds_are_refused_with_the_file(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"my.{suffix}"
    text = json.dumps(read_file(written(tmp_path)))
    means = {"not readable as": f"[{'9' * 5000}]", "too large": f"[{'9' * 400}, 1, 1]"}
    # Reading, merging or checking may fail first, depending on the depth.
    means |= {
        f"(nested too deeply|mean is)(?#{n})": "[" * n + "]" * n
        for n in (200, 300, 400, 700, 950, 5000)
    }
    for message, mean in means.items():
        path.write_text(text.replace("[1.0, 2.0, 3.0]", mean))
        with pytest.raises(PackError, match=rf"my\.{suffix}: .*{message}"):
            read_config(path)
    for depth in (200, 240, 300, 400, 700):
        path.write_text(text.replace('"depth": 18', f'"depth": {"[" * depth}1{"]" * depth}'))
        try:
            read_config(path)
        except PackError as e:
            assert f"my.{suffix}: nested too deeply" in str(e)


def test_a_packs_model_with_a_field_of_another_kind_is_refused() -> None:
    head = {"type": "RetinaHead", "num_classes": 1}
    spec = DetectorSpec("mmdet", ("acne",))
    for model, message in (
        ({"test_cfg": [1]}, r"model\.test_cfg is \[1\]"),
        ({"test_cfg": {"conf_thr": "x"}}, r"model\.test_cfg\.conf_thr is 'x', not a number"),
        ({"test_cfg": {}, "num_queries": True}, r"model\.num_queries is True, not a number"),
        (
            {"test_cfg": {"max_per_img": [1]}},
            r"model\.test_cfg\.max_per_img is \[1\], not a number",
        ),
    ):
        with pytest.raises(PackError, match=message):
            with_settings({"type": "RetinaNet", "bbox_head": head} | model, spec)


def test_a_config_without_a_test_pipeline_does_not_say_how_photos_are_resized(
    tmp_path: Path,
) -> None:
    path = tmp_path / "my.py"
    path.write_text(RETINANET.split("test_pipeline")[0])
    with pytest.raises(PackError, match=r"no test pipeline.*add test_pipeline = "):
        read_config(path)


def test_a_config_written_out_flat_by_mmengine_is_the_same(tmp_path: Path) -> None:
    from mmengine.config import Config

    path = written(tmp_path)
    Config.fromfile(str(path)).dump(str(tmp_path / "flat.json"))
    assert read_config(tmp_path / "flat.json") == read_config(path)


def test_score_floor_iou_and_cap_go_where_the_head_looks_for_them() -> None:
    spec = DetectorSpec("mmdet", CLASSES, score_floor=0.01, nms_iou=0.4, max_boxes=500)
    head = {"type": "RetinaHead", "num_classes": 4}
    nms = {"type": "nms", "iou_threshold": 0.7}
    ours = {"score_thr": 0.01, "nms": {"type": "nms", "iou_threshold": 0.4}, "max_per_img": 500}
    single = {
        "type": "YOLOV3",
        "bbox_head": head,
        "test_cfg": {"conf_thr": 0.5, "nms_pre": 9, "nms": nms},
    }
    assert with_settings(single, spec)["test_cfg"] == ours | {"conf_thr": 0.01, "nms_pre": 9}
    two: dict[str, Any] = {
        "type": "FasterRCNN",
        "roi_head": {"type": "StandardRoIHead", "bbox_head": [head, head]},
    }
    two["test_cfg"] = {
        "rpn": {"nms": nms, "max_per_img": 7},
        "rcnn": {"nms": nms, "max_per_img": 100},
    }
    assert with_settings(two, spec)["test_cfg"] == {
        "rpn": {"nms": nms, "max_per_img": 7},
        "rcnn": ours,
    }
    queries = {
        "type": "DETR",
        "num_queries": 100,
        "bbox_head": head,
        "test_cfg": {"max_per_img": 50},
    }
    assert with_settings(queries, spec)["test_cfg"] == {"score_thr": 0.01, "max_per_img": 400}
    assert two["test_cfg"]["rcnn"]["max_per_img"] == 100  # the caller's value is unchanged


def test_another_number_of_classes_is_refused_with_the_place_of_it(tmp_path: Path) -> None:
    model, _ = read_config(written(tmp_path))
    with pytest.raises(
        PackError, match=r"model\.bbox_head\.num_classes is 4, and 1 classes are named \(acne\)"
    ):
        build_model(DetectorSpec("mmdet", ("acne",), model=model))


def test_a_class_that_is_used_wrongly_says_what_mmdet_says(tmp_path: Path) -> None:
    model, _ = read_config(written(tmp_path, ("depth=18", "depth=19")))
    with pytest.raises(
        PackError, match=r"mmdet cannot build `RetinaNet` from its config: KeyError: .*19"
    ):
        build_model(DetectorSpec("mmdet", CLASSES, model=model))


@pytest.fixture(scope="module")
def stage_and_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[DetectorStage, Path]:
    """Return the stage and its weights as a pack has them."""
    folder = tmp_path_factory.mktemp("pack")
    model, fields = read_config(written(folder, ("scale=(1333, 800)", "scale=(192, 128)")))
    text = json.dumps(model)
    (folder / DETECTOR_CONFIG).write_text(text)
    network = build_model(DetectorSpec("mmdet", CLASSES, model=model))
    network.load_state_dict(random_detector_state("mmdet", CLASSES, model=model))
    weights = folder / "detector.safetensors"
    save_weights(network, weights)
    hashes = {"sha256": "0" * 64, "config_sha256": hashlib.sha256(text.encode()).hexdigest()}
    return DetectorStage.model_validate_json(
        json.dumps({"arch": "mmdet"} | hashes | fields)
    ), weights


def test_it_runs_as_the_detector_of_a_pack(stage_and_weights: tuple[DetectorStage, Path]) -> None:
    stage, weights = stage_and_weights
    detector = build_detector(stage, weights, "cpu", ModelSettings(score_floor=0.3, max_boxes=30))
    photos = [
        np.random.default_rng(i).integers(0, 256, (side, 100, 3), np.uint8)
        for i, side in enumerate((70, 300))
    ]
    for photo, found in zip(photos, detector(photos), strict=True):
        assert 0 < len(found) <= 30 and found.scores.min() >= 0.3
        assert (
            found.xyxy.min() >= 0
            and (found.xyxy.max(0) <= np.array([100, photo.shape[0]] * 2)).all()
        )
        assert set(found.labels.tolist()) <= set(range(4))
    assert detector.classes == CLASSES


def test_its_photos_have_the_size_that_mmdet_gives_them(
    stage_and_weights: tuple[DetectorStage, Path],
) -> None:
    from mmcv.transforms import Resize

    stage, weights = stage_and_weights
    detector = build_detector(stage, weights, "cpu", ModelSettings())
    assert isinstance(detector, MMDetDetector)
    for height, width in ((70, 100), (300, 100), (500, 500), (99, 133)):
        photo = np.zeros((height, width, 3), np.uint8)
        pixels, scale = at_network_scale(photo, detector.spec)
        resized = Resize(scale=(192, 128), keep_ratio=True)({"img": photo})
        assert pixels.shape == resized["img"].shape
        np.testing.assert_allclose(scale, resized["scale_factor"])


def test_a_pack_whose_model_names_other_code_is_not_built(
    stage_and_weights: tuple[DetectorStage, Path], tmp_path: Path
) -> None:
    stage, weights = stage_and_weights
    copy = tmp_path / weights.name
    copy.write_bytes(weights.read_bytes())
    model = json.loads(weights.with_name(DETECTOR_CONFIG).read_text())
    model["neck"]["type"] = "subprocess.run"
    (tmp_path / DETECTOR_CONFIG).write_text(json.dumps(model))
    with pytest.raises(
        PackError, match=r"model\.neck: type `subprocess\.run` imports code from outside mmdet"
    ):
        build_detector(stage, copy, "cpu", ModelSettings())
    (tmp_path / DETECTOR_CONFIG).unlink()
    with pytest.raises(
        PackError, match=f"{DETECTOR_CONFIG}: the model of arch `mmdet` cannot be read"
    ):
        build_detector(stage, copy, "cpu", ModelSettings())


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_head_runs_and_its_nan_is_noticed(name: str, mmdet_configs: Path) -> None:
    """Run cascades, anchor-free heads, heads with masks and transformers: 80 classes, random
    weights, a small photo."""
    model, _ = read_config(mmdet_configs / name)
    classes = tuple(map(str, range(80)))
    spec = DetectorSpec("mmdet", classes, model=model, size=96, score_floor=0.0, max_boxes=40)
    # As RTMDet is initialised, all of its boxes are empty.
    weights = (
        random_detector_state("mmdet", classes, model=model)
        if "rtmdet" in name
        else build_model(spec).state_dict()
    )
    photo = np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8)
    detector = MMDetDetector(spec, weights)
    (found,) = detector([photo])
    assert 0 < len(found) <= 40
    photos = [photo, np.ascontiguousarray(photo[:50]), photo[::-1].copy()]
    alone = [detector([one])[0] for one in photos]
    with ThreadPoolExecutor(3) as pool:
        for before, (after,) in zip(
            alone, pool.map(lambda one: detector([one]), photos), strict=True
        ):
            np.testing.assert_allclose(after.xyxy, before.xyxy, atol=1e-3)
    first = next(key for key in weights if key.startswith("backbone") and weights[key].ndim == 4)
    weights[first] = torch.full_like(weights[first], float("nan"))
    with pytest.raises(ModelOutputError, match="detector `mmdet` gave NaN"):
        MMDetDetector(spec, weights)([photo])


def both_inside(detector: MMDetDetector, seconds: float) -> list[bool]:
    """Return whether two threads that call the detector are in its model at the same time."""
    barrier = threading.Barrier(2)
    met: list[bool] = []

    def enter(*_: object) -> None:
        try:
            barrier.wait(seconds)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)

    hook = detector.model.backbone.register_forward_pre_hook(enter)
    photo = np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: detector([photo]), range(2)))
    hook.remove()
    return met


def test_threads_take_turns_in_a_model_that_keeps_something_of_a_call(mmdet_configs: Path) -> None:
    model, _ = read_config(mmdet_configs / "ddq" / "ddq-detr-4scale_r50_8xb2-12e_coco.py")
    model["backbone"]["depth"], model["neck"]["in_channels"] = 18, [128, 256, 512]
    model["encoder"]["num_layers"], model["decoder"]["num_layers"], model["num_queries"] = 1, 2, 40
    spec = DetectorSpec(
        "mmdet", tuple(map(str, range(80))), model=model, size=96, score_floor=0.0, max_boxes=40
    )
    detector = MMDetDetector(spec, build_model(spec).state_dict())
    assert both_inside(detector, 0.5) == [False, False]
    photos = [
        np.random.default_rng(i).integers(0, 256, (80 - 20 * (i % 2), 96, 3), np.uint8)
        for i in range(6)
    ]
    alone = [detector([photo])[0] for photo in photos]
    with ThreadPoolExecutor(3) as pool:
        for before, (after,) in zip(
            alone, pool.map(lambda photo: detector([photo]), photos), strict=True
        ):
            np.testing.assert_allclose(after.xyxy, before.xyxy, atol=1e-3)


def test_threads_share_a_model_that_keeps_nothing(
    stage_and_weights: tuple[DetectorStage, Path],
) -> None:
    stage, weights = stage_and_weights
    detector = build_detector(stage, weights, "cpu", ModelSettings())
    assert isinstance(detector, MMDetDetector) and both_inside(detector, 60.0) == [True, True]
