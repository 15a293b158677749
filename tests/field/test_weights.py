"""Test weights as people have them: checkpoints of training scripts, face-parsing networks, cards
of growing packs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18, resnet34
from typer.testing import CliRunner

from skinbatch.cli.main import app
from skinbatch.config import ModelSettings
from skinbatch.errors import PackError, UsageError
from skinbatch.models.assemble import add_stage, grow_pack
from skinbatch.models.build import build
from skinbatch.models.findings import Finding
from skinbatch.models.importing import Import
from skinbatch.models.segmenters.face_parsing import FACE_PARSING
from tests.unit.models.support import random_detector_state

BACKBONE = "resnet10t"
GRADES = ("mild", "severe")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKINBATCH_PACKS", str(tmp_path / "packs"))


@pytest.fixture(scope="module")
def state() -> Mapping[str, Tensor]:
    return network(0)


def network(seed: int, outputs: int = 2) -> dict[str, Tensor]:
    """Return the layers of a small network of timm's, as in its own state dict."""
    torch.manual_seed(seed)
    return dict(timm.create_model(BACKBONE, num_classes=outputs).state_dict())


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def saved(folder: Path, content: object, name: str = "weights.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def wanted(path: Path, **more: Any) -> Import:
    return Import(
        "classifier", f"timm:{BACKBONE}", path, classes=GRADES, fields={"size": 64}, **more
    )


def source_of(findings: tuple[Finding, ...], what: str) -> str:
    return next(finding.source for finding in findings if finding.what == what)


@pytest.mark.parametrize(
    ("prefix", "key"),
    [
        ("", "weights_of_mine"),
        ("model.", "state_dict"),
        ("module.", None),
        ("net.backbone.", None),
        ("_orig_mod.", "model_ema"),
        ("student.", "generator"),
        ("a.b.c.d.", "model"),
    ],
)
def test_a_network_is_found_under_any_prefix_and_key(
    prefix: str, key: str | None, tmp_path: Path, state: Mapping[str, Tensor]
) -> None:
    names = under(prefix, state)
    plain = add_stage("plain", wanted(saved(tmp_path, dict(state), "plain.pth")))
    pack = add_stage(
        "mine", wanted(saved(tmp_path, names if key is None else {"epoch": 9, key: names}))
    )
    assert pack.weights == plain.weights


def test_what_is_no_layer_is_left_out_and_named(
    tmp_path: Path, state: Mapping[str, Tensor]
) -> None:
    """Add a loss's weight, a counter, an optimizer, equal copies, and wrappers in the middle of names."""
    plain = add_stage("plain", wanted(saved(tmp_path, dict(state), "plain.pth")))
    lightning = {
        "epoch": 9,
        "state_dict": {**under("model.", state), "criterion.weight": torch.ones(2)},
        "optimizer_states": [{"state": {0: torch.zeros(1)}}],
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
    }
    pack, findings = grow_pack("mine", wanted(saved(tmp_path, lightning)))
    assert pack.weights == plain.weights
    layers = source_of(findings, "layers")
    assert (
        "`state_dict.model.`" in layers
        and "state_dict.criterion" in layers
        and "optimizer" in layers
    )

    averaged = {**under("module.", state), "n_averaged": torch.tensor(100)}
    same = {"model": dict(state), "ema": {"module": dict(state), "updates": 7}}
    inside = {
        name.replace("layer1.", "layer1._orig_mod.").replace("layer2.", "layer2.module."): t
        for name, t in state.items()
    }
    for content in (averaged, {**state, "n_averaged": torch.tensor(100)}, same, inside):
        assert add_stage("mine", wanted(saved(tmp_path, content))).weights == plain.weights


@pytest.mark.parametrize(
    ("around", "said"),
    [
        ("", "all names in the file; left out: n_averaged"),
        ("module.", "names begin with `module.`; left out: n_averaged"),
        ("module.module.", "names begin with `module.module.`; left out: n_averaged"),
        ("module.net.", "names begin with `module.net.`; left out: n_averaged"),
    ],
)
def test_wrappers_and_counters_are_named_as_the_file_has_them(
    around: str, said: str, tmp_path: Path, state: Mapping[str, Tensor]
) -> None:
    averaged = {"n_averaged": torch.tensor(100), **under(around, state)}
    _, findings = grow_pack("mine", wanted(saved(tmp_path, averaged)))
    assert source_of(findings, "layers") == said


def test_of_two_networks_that_differ_the_user_says_which(
    tmp_path: Path, state: Mapping[str, Tensor]
) -> None:
    path = saved(
        tmp_path, {"state_dict": {**under("student.", state), **under("teacher.", network(1))}}
    )
    message = r"weights\.pth: holds 2 different .*`state_dict\.student\.` and `state_dict\.teacher\.`; .*--prefix state_dict"
    with pytest.raises(UsageError, match=message):
        add_stage("mine", wanted(path))
    plain = add_stage("plain", wanted(saved(tmp_path, dict(state), "plain.pth")))
    student = add_stage("mine", wanted(path, prefix="state_dict.student."))
    teacher = add_stage("mine", wanted(path, prefix="state_dict.teacher."))
    assert student.weights == plain.weights != teacher.weights
    flat = saved(tmp_path, {**state, **under("ema.", network(1))}, "flat.pth")
    with pytest.raises(UsageError, match=r"names begin with `` and `ema\.`; .*--prefix ''"):
        add_stage("mine", wanted(flat))
    assert add_stage("mine", wanted(flat, prefix="")).weights == plain.weights
    assert add_stage("mine", wanted(flat, prefix="ema")).weights == teacher.weights
    with pytest.raises(
        UsageError, match=r"no name begins with `ema\.`; there are `state_dict\.student\.conv1"
    ):
        add_stage("mine", wanted(path, prefix="ema."))


def test_of_two_networks_the_one_whose_shapes_fit_is_meant(
    tmp_path: Path, state: Mapping[str, Tensor]
) -> None:
    path = saved(
        tmp_path, {**under("pretrained.", network(1, outputs=5)), **under("tuned.", state)}
    )
    _, findings = grow_pack("mine", wanted(path))
    assert "`tuned.`" in source_of(findings, "layers")


def test_layers_of_another_network_are_never_left_out(tmp_path: Path) -> None:
    """Use ResNet-34, which has every layer of ResNet-18 in the same shape."""
    torch.manual_seed(0)
    deeper = dict(timm.create_model("resnet34", num_classes=2).state_dict())
    path = saved(tmp_path, {"state_dict": under("model.", deeper)})
    with pytest.raises(PackError, match=r"unexpected layer `layer1\.2\.[^;]* and \d+ more"):
        add_stage("mine", Import("classifier", "timm:resnet18", path, classes=GRADES))


def test_where_nothing_fits_names_of_both_sides_are_shown(
    tmp_path: Path, state: Mapping[str, Tensor]
) -> None:
    path = saved(
        tmp_path,
        {
            "encoder": {
                "w1": torch.ones(2),
                "w2": torch.ones(2),
                "w3": torch.ones(2),
                "w4": torch.ones(2),
            }
        },
    )
    message = r"the file has `encoder\.w1`, `encoder\.w2`, `encoder\.w3` and 1 more; the architecture has `conv1\.0\.weight`, "
    with pytest.raises(PackError, match=message):
        add_stage("mine", wanted(path))
    half = {name: tensor for name, tensor in state.items() if not name.startswith("layer4.")} | {
        "bridge.weight": torch.ones(2)
    }
    with pytest.raises(
        PackError, match=r"missing layer `layer4\.[^;]*more; unexpected layer `bridge\.weight`"
    ):
        add_stage("mine", wanted(saved(tmp_path, half)))


def test_a_layer_of_another_shape_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": under("model.", network(0, outputs=3))})
    with pytest.raises(PackError, match=r"layer `fc\.bias` is \(3,\), the architecture has \(2,\)"):
        add_stage("mine", wanted(path))


def test_classes_that_nobody_names_are_asked_for(
    tmp_path: Path, state: Mapping[str, Tensor]
) -> None:
    path = saved(tmp_path, dict(state))
    with pytest.raises(
        UsageError,
        match=r"distinguishes 2 classes and does not name them; give their names in order: --classes",
    ):
        add_stage("mine", Import("classifier", f"timm:{BACKBONE}", path))


def test_the_command_says_what_it_took_and_what_it_assumed(
    tmp_path: Path, state: Mapping[str, Tensor]
) -> None:
    path = saved(tmp_path, {"state_dict": under("model.", state), "loss": torch.ones(2)})
    command = [
        "pack",
        "import",
        "mine",
        "--stage",
        "classifier",
        "--arch",
        f"timm:{BACKBONE}",
        "--weights",
        str(path),
    ]
    result = CliRunner().invoke(app, [*command, "--classes", "mild,severe"])
    assert result.exit_code == 0, result.output
    taken = {line.split()[0]: line for line in result.stdout.splitlines() if line.startswith("  ")}
    assert "mild, severe  (as set)" in taken["classes"]
    assert "softmax  (not in the file: " in taken["outputs"] and "set outputs" in taken["outputs"]
    assert (
        "mean 0.485, 0.456, 0.406" in taken["pixels"]
        and f"timm's own weights of {BACKBONE}" in taken["pixels"]
    )
    assert "names begin with `state_dict.model.`; left out: loss" in taken["layers"]


def test_classes_that_mmdet_notes_in_a_checkpoint_are_taken(tmp_path: Path) -> None:
    narrow: dict[str, Any] = {
        "width": 0.25,
        "head_channels": 16,
        "strides": (8, 16, 32),
        "size": 128,
    }
    names = ("papule", "pustule")
    content = {
        "meta": {"dataset_meta": {"classes": names}, "epoch": 3},
        "state_dict": random_detector_state("faster-rcnn-r18", names, **narrow),
        "message_hub": {"log": [1]},
    }
    path = saved(tmp_path, content)
    pack, findings = grow_pack("mine", Import("detector", "faster-rcnn-r18", path, fields=narrow))
    assert pack.detector.classes == names and "`meta`" in source_of(findings, "classes")
    again = add_stage(
        "mine", Import("detector", "faster-rcnn-r18", path, classes=("a", "b"), fields=narrow)
    )
    assert again.detector.classes == ("a", "b")


class ConvNorm(nn.Module):
    """Build the block of yakhyo/face-parsing, with its names."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


class Refinement(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = ConvNorm(channels, 128)
        self.attention = nn.Sequential(
            nn.Conv2d(128, 128, 1, bias=False), nn.BatchNorm2d(128), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        feature = self.conv_block(x)
        return feature * self.attention(feature.mean((2, 3), keepdim=True))


class Pyramid(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        # With the classifier that is never run.
        self.backbone = (resnet18 if depth == 18 else resnet34)(weights=None)
        self.arm16, self.arm32 = Refinement(256), Refinement(512)
        self.conv_head32, self.conv_head16, self.conv_avg = (
            ConvNorm(128, 128),
            ConvNorm(128, 128),
            ConvNorm(512, 128, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        net = self.backbone
        at4 = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))
        at8 = net.layer2(at4)
        at16 = net.layer3(at8)
        at32 = net.layer4(at16)
        whole = self.conv_avg(at32.mean((2, 3), keepdim=True))
        up32 = self.conv_head32(F.interpolate(self.arm32(at32) + whole, at16.shape[2:]))
        return at8, self.conv_head16(F.interpolate(self.arm16(at16) + up32, at8.shape[2:]))


class Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_block = ConvNorm(256, 256, 1)
        self.conv1, self.conv2 = (
            nn.Conv2d(256, 64, 1, bias=False),
            nn.Conv2d(64, 256, 1, bias=False),
        )

    def forward(self, fine: Tensor, context: Tensor) -> Tensor:
        feature = self.conv_block(torch.cat([fine, context], 1))
        return (
            feature
            + feature * self.conv2(self.conv1(feature.mean((2, 3), keepdim=True)).relu()).sigmoid()
        )


class Head(nn.Module):
    def __init__(self, channels_in: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv_block = ConvNorm(channels_in, channels)
        self.conv = nn.Conv2d(channels, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv_block(x))


class FaceParsing(nn.Module):
    """Build the network of yakhyo/face-parsing: the names of its layers, and what they compute."""

    def __init__(self, depth: int, classes: int = 19) -> None:
        super().__init__()
        self.fpn, self.ffm = Pyramid(depth), Fusion()
        self.conv_out = Head(256, 256, classes)
        self.conv_out16, self.conv_out32 = Head(128, 64, classes), Head(128, 64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(
            self.conv_out(self.ffm(*self.fpn(x))), x.shape[2:], mode="bilinear", align_corners=True
        )


def face_parsing(depth: int, classes: int = 19) -> FaceParsing:
    """Return random weights whose batch norms have seen noise, so that the labels vary."""
    torch.manual_seed(depth)
    made = FaceParsing(depth, classes)
    with torch.no_grad():
        for _ in range(3):
            made.train()(torch.randn(2, 3, 64, 64))
    return made.eval()


@pytest.mark.parametrize("depth", [18, 34])
@torch.inference_mode()
def test_face_parsing_under_other_names_masks_as_its_own_code_does(
    depth: int, tmp_path: Path, fake_pack: str
) -> None:
    theirs = face_parsing(depth)
    path = saved(
        tmp_path, {"model": theirs.state_dict(), "optimizer": {}, "epoch": 3}, "resnet.ckpt"
    )
    config = tmp_path / "stage.toml"
    config.write_text("size = 128\n")
    pack, findings = grow_pack(
        "mine", Import("segmenter", f"bisenet-r{depth}", path, (config,)), base=fake_pack
    )
    assert pack.segmenter.classes == FACE_PARSING and pack.segmenter.classes[10] == "nose"
    assert pack.segmenter.align_corners and pack.segmenter.spatial == "context"
    assert "face-parsing" in source_of(findings, "classes")

    photo = np.random.default_rng(3).integers(0, 256, (128, 128, 3), np.uint8)
    segmenter = build(pack, "cpu", ModelSettings()).segmenter
    (labels,) = segmenter([photo])
    mean, std = (
        torch.tensor(three).view(3, 1, 1)
        for three in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    pixels = torch.from_numpy(photo).permute(2, 0, 1).float() / 255
    expected = theirs(((pixels - mean) / std)[None])[0].argmax(0).numpy()
    assert np.mean(labels == expected) > 0.999 and len(np.unique(expected)) > 3


def test_a_deeper_face_parsing_network_is_refused_with_the_layer(tmp_path: Path) -> None:
    path = saved(tmp_path, face_parsing(34).state_dict())
    with pytest.raises(PackError, match=r"unexpected layer `cp\.resnet\.layer1\.2\."):
        add_stage("mine", Import("segmenter", "bisenet-r18", path))


def test_a_card_leaves_out_the_numbers_of_a_stage_that_was_replaced(
    tmp_path: Path, state: Mapping[str, Tensor]
) -> None:
    path = saved(tmp_path, dict(state))
    pack = add_stage("mine", wanted(path), base="starter")
    card = str(pack.text("CARD.md"))
    assert (
        "### Trained: segmenter" in card and "### Trained: detector" in card and "| AP50 |" in card
    )
    assert "Trained: classifier-disease" not in card and "diseases, whole pipeline" not in card
    assert "skinbatch pack show starter" in card

    grown = add_stage(
        "mine", Import("segmenter", "bisenet-r18", saved(tmp_path, face_parsing(18).state_dict()))
    )
    card = str(grown.text("CARD.md"))
    assert (
        "### Trained: detector" in card and "Trained: segmenter" not in card and "dice" not in card
    )


def test_a_card_keeps_all_of_a_base_whose_stages_are_all_there(
    tmp_path: Path, state: Mapping[str, Tensor]
) -> None:
    first = add_stage("first", wanted(saved(tmp_path, dict(state))))
    card = first.directory / "CARD.md"
    card.write_text(
        f"{card.read_text()}\n## Measured\n\nRecall 0.9.\n\n## Trained: classifier-disease\n\nRecall 0.8.\n"
    )
    path = saved(tmp_path, face_parsing(18).state_dict(), "faces.pth")
    grown = str(
        add_stage("mine", Import("segmenter", "bisenet-r18", path), base="first").text("CARD.md")
    )
    assert (
        "### Measured\n\nRecall 0.9." in grown
        and "### Trained: classifier-disease\n\nRecall 0.8." in grown
    )


def test_what_somebody_wrote_stays_with_a_warning_when_a_stage_is_replaced(
    tmp_path: Path, state: Mapping[str, Tensor]
) -> None:
    path = saved(tmp_path, dict(state))
    first = add_stage("mine", wanted(path))
    card = first.directory / "CARD.md"
    card.write_text(
        f"{card.read_text()}\nRecall 0.9 on our own faces.\n\n## Trained: classifier-disease\n\nRecall 0.8.\n"
    )
    again = add_stage("mine", wanted(saved(tmp_path, network(5))))
    text = str(again.text("CARD.md"))
    assert (
        "before `classifier-disease` was replaced" in text
        and "Recall 0.9 on our own faces." in text
    )
    assert "Recall 0.8" not in text
