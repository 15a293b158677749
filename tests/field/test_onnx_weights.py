"""Test ONNX files as exporters write them.

Metadata, numbers or a setting decide the layout; otherwise the file is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import CliRunner

from skinbatch.cli.main import app
from skinbatch.config import ModelSettings
from skinbatch.errors import PackError, UsageError
from skinbatch.models.assemble import add_stage, grow_pack
from skinbatch.models.findings import Finding
from skinbatch.models.importing import Import
from skinbatch.models.pack import Pack
from skinbatch.models.stages import ClassifierStage
from tests.unit.models.onnx_files import GREEN, RED, SquareYolo, export, photo_with, yolo
from tests.unit.models.support import random_detector_state

SIZE = 64
TWO = ("papule", "pustule")
ULTRALYTICS = {
    "author": "Ultralytics",
    "task": "detect",
    "names": str(dict(enumerate(TWO))),
    "stride": "32",
    "imgsz": "[64, 64]",
}
RTDETR = ULTRALYTICS | {"description": "Ultralytics rtdetr-l model trained on acne.yaml"}
NAMED = {"names": str(list(TWO))}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKINBATCH_PACKS", str(tmp_path / "packs"))


class Squares(nn.Module):
    """Give SquareYolo's boxes in another layout. x: (N, 3, 64, 64)."""

    def __init__(self, layout: str, classes: int = 2) -> None:
        super().__init__()
        self.yolo = SquareYolo(classes, "v8")
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        rows = self.yolo(x).transpose(1, 2)
        scores = rows[..., 4:] * 0.9 + 0.05  # a logistic output is never exactly 0 or 1
        if self.layout == "v8-rows":
            return torch.cat([rows[..., :4], scores], 2)
        if self.layout == "logits":
            return torch.cat([rows[..., :4], 20 * scores - 10], 2).transpose(1, 2)
        if self.layout == "rtdetr":
            return torch.cat([rows[..., :4] / SIZE, scores], 2)
        best, label = scores.max(2)
        best, order = best.topk(60)
        label = label.gather(1, order)[..., None].to(x.dtype)
        boxes = rows[..., :4].gather(1, order[..., None].expand(-1, -1, 4))
        if self.layout == "rtdetr-nms":
            return torch.cat([boxes / SIZE, best[..., None], label], 2)
        corners = torch.cat(
            [boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], 2
        )
        return torch.cat([corners, best[..., None], label], 2)


class OwnExport(nn.Module):
    """Export as RT-DETR's own script does: two inputs, three outputs."""

    def forward(self, x: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = Squares("rtdetr-nms")(x)
        assert isinstance(rows, Tensor)
        centre, half = rows[..., :2], rows[..., 2:4] / 2
        boxes = torch.cat([centre - half, centre + half], 2) * sizes.repeat(1, 2)[:, None].to(
            x.dtype
        )
        return rows[..., 5].long(), boxes, rows[..., 4]


class Constant(nn.Module):
    """Give the same rows for every photo."""

    rows: Tensor

    def __init__(self, rows: NDArray[Any] | Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor(np.asarray(rows), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return self.rows[None] + 0 * x.mean((1, 2, 3), keepdim=True)[..., 0]


def file_of(
    folder: Path, network: nn.Module, metadata: Mapping[str, str] = NAMED, **how: Any
) -> Path:
    return export(network, folder / "best.onnx", (1, 3, SIZE, SIZE), metadata=metadata, **how)


def imported(
    path: Path, classes: tuple[str, ...] | None = None, **fields: Any
) -> tuple[Pack, tuple[Finding, ...]]:
    return grow_pack("mine", Import("detector", "yolo-onnx", path, classes=classes, fields=fields))


def layout_of(found: tuple[Pack, tuple[Finding, ...]]) -> tuple[str, str]:
    """Return the layout and its source."""
    pack, findings = found
    assert pack.detector.layout == findings[0].value
    return findings[0].value, findings[0].source


def boxes_in(pack: Pack, photo: NDArray[np.uint8]) -> list[tuple[list[float], str]]:
    """Return the corners, to the pixel, and the class of every box of a photo."""
    from skinbatch.models.build import build_detector

    detector = build_detector(
        pack.detector, pack.weights_file("detector"), "cpu", ModelSettings(score_floor=0.5)
    )
    (found,) = detector([photo])
    return sorted(
        (xyxy.round().tolist(), detector.classes[label])
        for xyxy, label in zip(found.xyxy, found.labels, strict=True)
    )


def tall_stretched() -> NDArray[np.uint8]:
    """Return a photo of 32 x 128 whose boxes are squares of 16 when it is stretched to 64 x 64."""
    photo = photo_with(128, 32, [])
    photo[32:64, 8:16] = RED
    photo[64:96, 20:28] = GREEN
    return photo


STRETCHED = [([8, 32, 16, 64], "papule"), ([20, 64, 28, 96], "pustule")]


@pytest.mark.parametrize("layout", ["rtdetr", "rtdetr-nms"])
@pytest.mark.parametrize("metadata", [RTDETR, ULTRALYTICS | {"head": "RTDETRDecoder"}, NAMED])
@pytest.mark.parametrize("half", [False, True])
def test_rtdetr_of_ultralytics_gives_boxes_of_the_stretched_photo(
    layout: str, metadata: dict[str, str], half: bool, tmp_path: Path
) -> None:
    found = imported(file_of(tmp_path, Squares(layout), metadata, half=half, open_axes=(0,)))
    taken, source = layout_of(found)
    assert taken == layout and "boxes are from 0." in source
    assert ("metadata" in source) == (metadata != NAMED)
    assert boxes_in(found[0], tall_stretched()) == STRETCHED


def test_rtdetrs_own_export_has_labels_boxes_and_scores(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    example = torch.rand(1, 3, SIZE, SIZE), torch.tensor([[SIZE, SIZE]])
    torch.onnx.export(
        OwnExport(),
        example,
        path,
        dynamo=False,
        opset_version=17,
        input_names=["images", "orig_target_sizes"],
        output_names=["labels", "boxes", "scores"],
        dynamic_axes={"images": {0: "N"}, "orig_target_sizes": {0: "N"}},
    )
    with pytest.raises(PackError, match="--classes a,b,c"):
        imported(path)
    found = imported(path, TWO)
    assert layout_of(found) == (
        "rtdetr-labels",
        "outputs `labels`, `boxes`, `scores` and input `orig_target_sizes`",
    )
    assert boxes_in(found[0], tall_stretched()) == STRETCHED


@pytest.mark.parametrize(
    "metadata",
    [NAMED, ULTRALYTICS | {"end2end": "True", "description": "Ultralytics YOLO26n model"}],
)
def test_boxes_that_the_network_chose_itself_are_corners_score_and_class(
    metadata: dict[str, str], tmp_path: Path
) -> None:
    found = imported(file_of(tmp_path, Squares("end2end"), metadata))
    assert layout_of(found)[0] == "nms"
    assert boxes_in(found[0], photo_with(64, 64, [(16, 20, 16, RED)])) == [
        ([16, 20, 32, 36], "papule")
    ]


@pytest.mark.parametrize("name", ["v8", "yolov8", "yolo11"])
def test_a_layout_may_be_set_by_the_name_of_a_network(name: str, tmp_path: Path) -> None:
    config = tmp_path / "stage.toml"
    config.write_text(f'layout = "{name}"\n')
    path = yolo(tmp_path / "best.onnx", "v8")
    pack, findings = grow_pack("mine", Import("detector", "yolo-onnx", path, (config,)))
    assert pack.detector.layout == "v8" and findings[0].source == "as set"


@pytest.mark.parametrize("layout", ["yolo9000", 8, ["v8"]])
def test_a_layout_that_there_is_not_is_refused_with_those_that_there_are(
    layout: object, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"no layout .*; there are: v5, v8, v8-rows, nms, rtdetr"):
        imported(yolo(tmp_path / "best.onnx", "v8"), layout=layout)


def test_a_layout_that_is_set_still_has_to_fit(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="with 2 classes layout `v5` is N x boxes x 7"):
        imported(yolo(tmp_path / "best.onnx", "v8"), layout="yolov5")
    with pytest.raises(PackError, match="layout `rtdetr-labels` is three outputs"):
        imported(yolo(tmp_path / "best.onnx", "v8"), layout="rtdetr-labels")


def yolox(folder: Path, decoded: bool) -> tuple[Path, Pack]:
    """Export mmdet's YOLOX with random weights as YOLOX's script does, and import the same weights
    as a checkpoint."""
    from skinbatch.models.detectors.mmdet.detector import build_model
    from skinbatch.models.detectors.mmdet.spec import DetectorSpec

    state = random_detector_state("yolox-tiny", TWO)
    state["backbone.stem.conv.conv.weight"] /= (
        100  # made for numbers around 1, and fed with 0 to 255
    )
    torch.save(state, folder / "weights.pth")
    checkpoint = Import(
        "detector", "yolox-tiny", folder / "weights.pth", classes=TWO, fields={"size": 96}
    )
    model = build_model(DetectorSpec("yolox-tiny", TWO, size=96))
    model.load_state_dict(state, strict=False)

    class Export(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            levels = []
            for scores, boxes, objects in zip(
                *self.model.bbox_head(self.model.extract_feat(x)), strict=True
            ):
                rows = torch.cat([boxes, objects.sigmoid(), scores.sigmoid()], 1)
                if decoded:
                    side = 96 // rows.shape[3]
                    cells = torch.arange(rows.shape[3], dtype=torch.float32)
                    y, x_ = torch.meshgrid(cells, cells, indexing="ij")
                    rows = torch.cat(
                        [
                            (rows[:, :2] + torch.stack([x_, y])) * side,
                            rows[:, 2:4].exp() * side,
                            rows[:, 4:],
                        ],
                        1,
                    )
                levels.append(rows.flatten(2))
            return torch.cat(levels, 2).transpose(1, 2)

    path = export(Export(), folder / "yolox.onnx", (1, 3, 96, 96), outputs=("output",))
    return path, add_stage("checkpoint", checkpoint)


@pytest.mark.parametrize("decoded", [False, True])
def test_yolox_gives_the_boxes_that_its_checkpoint_gives(decoded: bool, tmp_path: Path) -> None:
    path, checkpoint = yolox(tmp_path, decoded)
    if decoded:
        with pytest.raises(
            PackError,
            match=r"may be `v5` or `yolox`: nothing in the file decides.*layout = \"yolox\"",
        ):
            imported(path, TWO)
    found = imported(path, TWO, layout="yolox" if decoded else None)
    assert layout_of(found)[0] == ("yolox" if decoded else "yolox-raw")
    assert found[0].detector.bgr and found[0].detector.std == (1.0, 1.0, 1.0)

    photo = np.random.default_rng(2).integers(0, 256, (96, 60, 3), np.uint8)
    settings = ModelSettings(score_floor=0.2, nms_iou=0.5)
    both = []
    for pack in (found[0], checkpoint):
        from skinbatch.models.build import build_detector

        (boxes,) = build_detector(pack.detector, pack.weights_file("detector"), "cpu", settings)(
            [photo]
        )
        both.append(boxes)
    theirs, ours = both[1], both[0]
    assert len(theirs) > 5
    np.testing.assert_allclose(ours.scores[:5], theirs.scores[:5], atol=1e-3)
    np.testing.assert_allclose(ours.xyxy[:5], theirs.xyxy[:5], atol=0.1)


def test_cells_of_a_grid_that_are_not_decoded_are_no_boxes_in_pixels(tmp_path: Path) -> None:
    """Use 84 cells of strides 8, 16 and 32 with six numbers each, which a YOLOv5 of one class also has."""
    rows = np.random.default_rng(0).normal(0, 0.8, (84, 6))
    rows[:, 4:] = 0.01
    rows[0] = [0.5, 0.5, np.log(2), np.log(2), 0.95, 0.95]
    rows[10] = [0.25, 0.5, np.log(3), np.log(3), 0.9, 0.9]
    found = imported(file_of(tmp_path, Constant(rows), {}), ("acne",))
    assert layout_of(found)[0] == "yolox-raw"
    # Cells 0 and 10 are columns 0 and 2 of rows 0 and 1; a cell is 8 pixels.
    assert boxes_in(found[0], photo_with(64, 64, [])) == [
        ([0, 0, 12, 12], "acne"),
        ([6, 0, 30, 24], "acne"),
    ]


@pytest.mark.parametrize(
    ("network", "metadata", "message"),
    [
        (Squares("logits"), NAMED, r"not `v8`: its scores are from .*, not probabilities"),
        (Squares("v8-rows"), NAMED, r'not `rtdetr`: its boxes are from .*layout = "v8-rows"'),
        (
            Squares("v8-rows"),
            RTDETR,
            r"`description` is 'Ultralytics rtdetr.*not `rtdetr`: its boxes are from 8 to 56",
        ),
        (
            Squares("rtdetr"),
            ULTRALYTICS | {"description": "Ultralytics YOLOv8n model"},
            r"`description` is 'Ultralytics YOLOv8n model', but on examples it is not `nms`",
        ),
        (
            Constant([[0.1, 0.2, 0.5, 0.6, 0.9, 1.0]] * 9),
            NAMED,
            r"not `rtdetr-nms`: its boxes may be corners",
        ),
        (Squares("end2end"), ULTRALYTICS | {"task": "segment"}, "metadata `task` is `segment`"),
        (Squares("end2end"), ULTRALYTICS | {"task": "pose"}, "metadata `task` is `pose`"),
        (Squares("end2end"), ULTRALYTICS | {"task": "obb"}, "metadata `task` is `obb`"),
    ],
)
def test_what_contradicts_itself_or_is_not_decided_is_refused(
    network: nn.Module, metadata: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(PackError, match=rf"best\.onnx: .*{message}"):
        imported(file_of(tmp_path, network, metadata))


def test_rows_of_v8_are_read_where_that_is_set(tmp_path: Path) -> None:
    found = imported(file_of(tmp_path, Squares("v8-rows")), layout="v8-rows")
    assert boxes_in(found[0], photo_with(64, 64, [(16, 20, 16, RED)])) == [
        ([16, 20, 32, 36], "papule")
    ]


def test_more_classes_than_the_metadata_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="with 3 classes a YOLO export is"):
        imported(yolo(tmp_path / "v5.onnx", "v5"), ("a", "b", "c"))
    with pytest.raises(
        PackError, match=r"metadata `names` has 2 classes \(papule, pustule\), not 1"
    ):
        imported(file_of(tmp_path, Squares("end2end")), ("acne",))


def test_colours_that_would_not_be_applied_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"layout `v8` reads RGB, 0 to 1, .*; leave out `mean`"):
        imported(yolo(tmp_path / "v8.onnx", "v8"), mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    "names", [("boxes", "labels", "scores"), ("dets", "labels"), ("logits", "pred_boxes")]
)
def test_outputs_of_other_exporters_are_refused_by_name(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    class Several(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return tuple(x.flatten(2)[:, : n + 1, :4] for n, _ in enumerate(names))

    with pytest.raises(
        PackError, match=rf"outputs are `{names[0]}` .*`orig_target_sizes` are read"
    ):
        imported(file_of(tmp_path, Several(), outputs=names))


def changed_input(path: Path, kind: int, shape: Sequence[int]) -> Path:
    """Return the file with a cast or a transposition before its first layer."""
    model = onnx.load(path)
    given = model.graph.input[0]
    given.CopyFrom(onnx.helper.make_tensor_value_info("photos", kind, shape))
    nodes = [
        onnx.helper.make_node("Cast", ["photos"], ["cast"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node(
            "Transpose", ["cast"], ["images"], perm=[0, 3, 1, 2] if shape[-1] == 3 else [0, 1, 2, 3]
        ),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    onnx.save(model, path)
    return path


def test_inputs_of_other_forms_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = changed_input(
        file_of(tmp_path, Squares("end2end")), onnx.TensorProto.UINT8, [1, 3, SIZE, SIZE]
    )
    with pytest.raises(
        PackError, match=r"input `photos` is tensor\(uint8\); export it for tensor\(float\)"
    ):
        imported(path)
    path = changed_input(
        file_of(tmp_path, Squares("end2end")), onnx.TensorProto.FLOAT, [1, SIZE, SIZE, 3]
    )
    with pytest.raises(
        PackError,
        match=r"is 1 x 64 x 64 x 3, not N x 3 x height x width; export it with the channels first",
    ):
        imported(path)


def test_the_command_says_which_layout_it_took_and_from_where(tmp_path: Path) -> None:
    path = file_of(tmp_path, Squares("rtdetr"), RTDETR)
    command = [
        "pack",
        "import",
        "mine",
        "--stage",
        "detector",
        "--arch",
        "yolo-onnx",
        "--weights",
        str(path),
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "rtdetr  (metadata `description` is 'Ultralytics rtdetr-l model" in result.stdout
    assert "papule, pustule  (metadata `names`)" in result.stdout
    assert "RGB, 0 to 1, stretched to the input" in result.stdout
    assert "no --classes" not in result.output


class Classifier(nn.Module):
    """Give three classes through `end`."""

    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv, self.out, self.end = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 3), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(4 * self.out(self.conv(x).relu().mean((2, 3))))


class Shares(nn.Module):
    """Compute a softmax in several operators, so that the graph has no single one for it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp() / x.exp().sum(1, keepdim=True)


class Cast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(1).double()


THREE = ("rosacea", "acne", "none")


def classified(path: Path, **fields: Any) -> tuple[Pack, dict[str, Finding]]:
    classes = THREE if "best" in path.name else None
    pack, findings = grow_pack(
        "mine", Import("classifier", "onnx", path, classes=classes, fields=fields)
    )
    return pack, {finding.what: finding for finding in findings}


@pytest.mark.parametrize(
    ("end", "outputs", "source"),
    [
        (nn.Softmax(1), "none", "its graph ends in Softmax"),
        (nn.Sigmoid(), "none", "its graph ends in Sigmoid"),
        (Cast(), "none", "its graph ends in Softmax"),
        (nn.LogSoftmax(1), "softmax", "its graph ends in LogSoftmax"),
        (Shares(), "none", "add up to 1"),
    ],
)
def test_what_makes_probabilities_is_seen_in_the_graph_or_its_numbers(
    end: nn.Module, outputs: str, source: str, tmp_path: Path
) -> None:
    pack, findings = classified(file_of(tmp_path, Classifier(end), {}))
    assert pack.stages["classifier-disease"].numbers()["outputs"] == outputs
    assert source in findings["outputs"].source
    assert findings["pixels"].is_assumed and "set mean and std" in findings["pixels"].source


def test_a_classifier_of_unknown_outputs_is_refused_until_they_are_set(tmp_path: Path) -> None:
    """Export a real network of timm's: its logits may be meant for softmax or for logistic functions."""
    torch.manual_seed(1)
    network = timm.create_model("resnet10t", num_classes=3).eval()
    path = file_of(tmp_path, network, {})
    with pytest.raises(
        PackError,
        match=r'best\.onnx: output `output0` has no visible softmax.*outputs = "softmax".*"logistic".*"none"',
    ):
        classified(path)
    exported, _ = classified(path, outputs="softmax")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    own = Import(
        "classifier",
        "timm:resnet10t",
        tmp_path / "weights.pth",
        classes=THREE,
        fields={"size": SIZE, "head": "own"},
    )
    both = add_stage("mine", own)
    photo = np.random.default_rng(0).integers(0, 256, (80, 64, 3), np.uint8)
    from skinbatch.models.build import build_classifier

    stages = [
        (stage, exported.weights_file(stem) if "own" not in stem else both.weights_file(stem))
        for stem, stage in both.stages.items()
    ]
    one, other = (
        build_classifier(cast(ClassifierStage, stage), file, "cpu", ModelSettings())([photo])
        for stage, file in stages
    )
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_classifier_of_ultralytics_reads_0_to_1(tmp_path: Path) -> None:
    metadata = {"author": "Ultralytics", "task": "classify", "names": str(list(THREE))}
    pack, findings = classified(file_of(tmp_path, Classifier(nn.Softmax(1)), metadata))
    numbers = pack.stages["classifier-disease"].numbers()
    assert numbers["mean"] == [0, 0, 0] and numbers["std"] == [1, 1, 1]
    assert "Ultralytics" in findings["pixels"].source
    with pytest.raises(
        PackError, match="metadata `task` is `detect`; only `classify` is supported here"
    ):
        classified(file_of(tmp_path, Classifier(nn.Softmax(1)), metadata | {"task": "detect"}))
