"""Measure every architecture of `pack import`, alone and in the pipeline.

All have seeded random weights and use the same photos and cores.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skinbatch.models.architectures import ARCHITECTURES, public_names
from skinbatch.models.assemble import add_stage
from skinbatch.models.classifiers.classifier import ClassifierSpec, build_network
from skinbatch.models.classifiers.classifier_layouts import network_name
from skinbatch.models.detectors.mmdet.detector import build_model
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.fake import write_fake_pack
from skinbatch.models.families import defaults_of
from skinbatch.models.importing import Import
from skinbatch.models.segmenters.bisenet import BiSeNet
from skinbatch.models.stages import DetectorStage

TARGET = 0.9
TILING_TARGET = 1.15
_TIMM = "efficientnet_b0"
_CONFIG = """
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(0, 1, 2, 3)),
    neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=256, start_level=1,
              add_extra_convs='on_input', num_outs=5),
    bbox_head=dict(type='RetinaHead', num_classes=1, in_channels=256, stacked_convs=4, feat_channels=256,
                   anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3,
                                         ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128])),
    test_cfg=dict(nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5),
                  max_per_img=100))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(640, 640), keep_ratio=True),
                 dict(type='PackDetInputs')]
"""


class YoloLike(nn.Module):
    """Imitate a YOLOv8 export: strides 8, 16 and 32, and 4 + classes numbers per place."""

    def __init__(self, classes: int = 1) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 128, 256)
        pairs = pairwise(widths)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.SiLU(), nn.Conv2d(b, b, 3, 1, 1), nn.SiLU())
            for a, b in pairs
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, 4 + classes, 1) for width in widths[3:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number >= 2:
                levels.append(self.heads[number - 2](x).flatten(2))
        every = torch.cat(levels, 2)
        return torch.cat((every[:, :4].sigmoid() * 600 + 20, every[:, 4:].sigmoid()), 1)


@dataclass(frozen=True, slots=True)
class Rates:
    """Hold photos/s of an architecture.

    model: as its library builds it, on inputs made before. alone: with decoding and the stand-ins
    of the other stages. folded: the same with batch norms folded, as in the pipeline. pipeline:
    with everything around it.
    """

    model: float
    alone: float
    folded: float
    pipeline: float


@dataclass
class Speed:
    """Hold photos/s of one architecture, one entry per repeat."""

    stage: str
    arch: str
    parameters: int
    model: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    folded: list[float] = field(default_factory=list)
    pipeline: list[float] = field(default_factory=list)

    def add(self, rates: Rates) -> None:
        self.model.append(rates.model)
        self.alone.append(rates.alone)
        self.folded.append(rates.folded)
        self.pipeline.append(rates.pipeline)

    @property
    def ratio(self) -> float:
        return statistics.median(self.pipeline) / statistics.median(self.alone)

    @property
    def kept(self) -> float:
        """Return the pipeline's rate as a share of the folded network's."""
        return statistics.median(self.pipeline) / statistics.median(self.folded)

    def line(self) -> str:
        rates = [
            statistics.median(each) for each in (self.model, self.alone, self.folded, self.pipeline)
        ]
        met = "" if self.ratio >= TARGET else "  MISSED"
        name = f"{self.stage:<11} {self.arch:<22} {self.parameters / 1e6:8.2f}"
        return f"{name} {' '.join(f'{rate:10.2f}' for rate in rates)} {self.ratio:7.2f} {self.kept:7.2f}{met}"


HEADING = f"{'stage':<11} {'architecture':<22} {'M param.':>8} " + " ".join(
    f"{name:>{width}}"
    for name, width in (
        ("model /s", 10),
        ("alone /s", 10),
        ("folded /s", 10),
        ("pipeline/s", 10),
        ("ratio", 7),
        ("kept", 7),
    )
)


def packs(work: Path, only: str | None) -> dict[tuple[str, str], str]:
    """Map (stage, architecture) to a pack with it, at its default input size.

    The pack's other stages cost nothing.
    """
    fake = str(write_fake_pack(work / "fake"))
    packs = {}
    for stage in ARCHITECTURES:
        for arch in public_names(stage):
            if only is None or arch in only.split(","):
                folder = work / arch
                folder.mkdir()
                torch.manual_seed(0)
                stage_added = _MAKERS[stage](arch, folder)
                pack = add_stage("mine", stage_added, dest=str(folder), base=fake)
                stage_added.weights.unlink()
                packs[stage, arch] = str(pack.directory)
    return packs


def measure(
    named: dict[tuple[str, str], str], run: Callable[[str, str], Rates], repeats: int
) -> list[Speed]:
    """Measure every architecture and print each result as it comes.

    run: measures a stage of a pack.
    """
    from skinbatch.models.pack import load_pack

    print(HEADING, flush=True)
    speeds = []
    for (stage, arch), directory in named.items():
        stem = next(
            s
            for s in load_pack(directory).stages
            if s.startswith(stage) and load_pack(directory).stages[s].sha256
        )
        speed = Speed(stage, arch, load_pack(directory).stages[stem].parameters or 0)
        for _ in range(repeats):
            speed.add(run(directory, stage))
        print(speed.line(), flush=True)
        speeds.append(speed)
    return speeds


def as_json(speeds: list[Speed]) -> list[dict[str, Any]]:
    return [
        asdict(speed) | {"ratio": round(speed.ratio, 3), "kept": round(speed.kept, 3)}
        for speed in speeds
    ]


def _segmenter(arch: str, folder: Path) -> Import:
    return Import("segmenter", arch, _saved(BiSeNet(arch, 3), folder))


def _detector(arch: str, folder: Path) -> Import:
    if arch == "yolo-onnx":
        return Import("detector", arch, _exported(YoloLike(), folder, 640), classes=("acne",))
    if arch == "mmdet":
        from skinbatch.models.detectors.mmdet.user_config import read_config

        config = folder / "my.py"
        config.write_text(_CONFIG, encoding="utf-8")
        model = build_model(DetectorSpec(arch, ("acne",), model=read_config(config)[0]))
        return Import("detector", arch, _saved(model, folder), (config,), ("acne",))
    fields = defaults_of(ARCHITECTURES["detector"][arch])
    spec = replace(
        DetectorSpec(arch, ("acne",), size=DetectorStage.model_fields["size"].default), **fields
    )
    return Import("detector", arch, _saved(build_model(spec), folder))


def _classifier(arch: str, folder: Path) -> Import:
    classes = ("none", "mild", "moderate", "severe")
    if arch == "onnx":
        network = build_network(ClassifierSpec("resnet18", classes, size=224, top="native"))
        config = folder / "stage.toml"
        config.write_text('outputs = "softmax"\n', encoding="utf-8")
        return Import("classifier", arch, _exported(network, folder, 224), (config,), classes)
    backbone = _TIMM if arch == "timm" else None
    known = defaults_of(ARCHITECTURES["classifier"][arch], backbone)
    spec = ClassifierSpec(
        network_name(arch, backbone), classes, size=known["size"], top=known["top"]
    )
    return Import(
        "classifier",
        f"timm:{_TIMM}" if backbone else arch,
        _saved(build_network(spec), folder),
        (),
        classes,
    )


_MAKERS = {"segmenter": _segmenter, "detector": _detector, "classifier": _classifier}


def _saved(network: nn.Module, folder: Path) -> Path:
    path = folder / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


def _exported(network: nn.Module, folder: Path, size: int) -> Path:
    path = folder / "best.onnx"
    axes = {"images": {0: "n"}, "output0": {0: "n"}}
    torch.onnx.export(
        network.eval(),
        (torch.rand(1, 3, size, size),),
        path,
        dynamo=False,
        opset_version=17,
        input_names=["images"],
        output_names=["output0"],
        dynamic_axes=axes,
    )
    return path
