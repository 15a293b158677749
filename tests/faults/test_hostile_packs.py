"""Test hostile packs and checkpoints: nothing is executed, no other file is opened, and each is refused by name."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import save

from skinbatch.config import ModelSettings, load_config
from skinbatch.errors import PackError, UsageError
from skinbatch.models.build import build, build_classifier
from skinbatch.models.checkpoint import read_checkpoint
from skinbatch.models.detectors.mmdet.config_file import read_file
from skinbatch.models.fake import write_fake_pack
from skinbatch.models.onnx_file import OnnxFile
from skinbatch.models.pack import load_pack
from skinbatch.models.stages import ClassifierStage
from tests.unit.models.onnx_files import export

MARK = "SKINBATCH_EXECUTED"


class Payload:
    """Record that code was run by whoever unpickled it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; os.environ[{MARK!r}] = '1'",)


def torch_saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def header(text: str | bytes, length: int | None = None, data: bytes = b"") -> bytes:
    """Return a safetensors file. length: the length of the header that it claims."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def tensor(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


WEIGHTS = {
    "pickle": pickle.dumps(Payload()),
    "pickle of a state dict": pickle.dumps({"a": Payload()}),
    "torch.save": torch_saved({"state_dict": {"a": torch.zeros(1)}, "more": Payload()}),
    "program": b"#!/bin/sh\ntouch executed\n",
    "empty": b"",
    "length without end": header("{}", (1 << 63) - 1),
    "length of all ones": header("{}", (1 << 64) - 1),
    "header of gigabytes": header("{" + " " * 2000, 8 << 30),
    "offsets out of the file": header(json.dumps({"a": tensor([1 << 20], 0, 4 << 20)}), data=bytes(16)),
    "offsets backwards": header(json.dumps({"a": tensor([4], 16, 0)}), data=bytes(16)),
    "offsets below zero": header('{"a":{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}}', data=bytes(16)),
    "overlap": header(json.dumps({"a": tensor([4], 0, 16), "b": tensor([4], 0, 16)}), data=bytes(16)),
    "shape beyond numbers": header(json.dumps({"a": tensor([1 << 62, 1 << 62], 0, 16)}), data=bytes(16)),
    "unknown type": header(json.dumps({"a": tensor([4], 0, 16, "PICKLE")}), data=bytes(16)),
    "nested": header("[" * 100_000),
    "no text": header(b"\xff\xfe" * 50),
    "other layers": save({"../../etc/passwd": torch.zeros(1)}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_executed() -> Iterator[None]:
    """Check that neither the payload nor a process, a shell or a connection was started."""
    seen: list[str] = []
    watching = True

    def listen(name: str, arguments: tuple[Any, ...]) -> None:
        if watching and name in (
            "subprocess.Popen",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "socket.connect",
        ):
            seen.append(f"{name} {arguments!r}"[:200])

    sys.addaudithook(listen)
    os.environ.pop(MARK, None)
    yield
    watching = False
    assert MARK not in os.environ
    assert seen == []


def pack_with(directory: Path, weights: bytes) -> Path:
    """Return a pack whose segmenter has these weights, with the right hash."""
    pack = write_fake_pack(directory)
    (pack / "segmenter.safetensors").write_bytes(weights)
    manifest = (pack / "pack.toml").read_text()
    digest = hashlib.sha256(weights).hexdigest()
    manifest = manifest.replace(
        'arch = "fake-segmenter"', f'arch = "bisenet-light"\nsha256 = "{digest}"'
    )
    (pack / "pack.toml").write_text(manifest)
    return pack


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_a_pack_are_numbers_or_refused(name: str, tmp_path: Path) -> None:
    pack = load_pack(pack_with(tmp_path / "pack", WEIGHTS[name]))
    pack.verify()
    with pytest.raises(PackError, match=r"segmenter\.safetensors"):
        build(pack, "cpu", ModelSettings())


@pytest.mark.parametrize("ending", ["pth", "safetensors", "pt", "ckpt"])
@pytest.mark.parametrize("name", [name for name in WEIGHTS if name != "other layers"])
def test_checkpoints_to_import_are_numbers_or_refused(
    name: str, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights.{ending}"
    path.write_bytes(WEIGHTS[name])
    with pytest.raises(PackError, match=rf"weights\.{ending}"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "backbone",
    ["hf-hub:someone/model", "hf_hub:timm/resnet18", "local-dir:/tmp", "../x", "os.system"],
)
def test_a_backbone_is_one_of_timms_own_and_is_fetched_from_nowhere(
    backbone: str, tmp_path: Path
) -> None:
    weights = tmp_path / "classifier-disease.safetensors"
    weights.write_bytes(save({"a": torch.zeros(1)}))
    stage = ClassifierStage(arch="timm", backbone=backbone, classes=("a", "b"), sha256="0" * 64)
    with pytest.raises(PackError, match="has no backbone"):
        build_classifier(stage, weights, "cpu", ModelSettings())


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret.bin", "secret.bin", "a/../../secret.bin", ""]
)
def test_an_onnx_file_reads_no_other_file(location: str, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    for folder in (tmp_path, tmp_path / "pack"):
        (folder / "secret.bin").write_bytes(b"\x40" * 4096)
    path = export(torch.nn.Conv2d(3, 4, 3), tmp_path / "pack" / "classifier.onnx", (1, 3, 8, 8))
    model = onnx.load(path)
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.ClearField("float_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PackError, match=r"classifier\.onnx: weights .* are in another file"):
        OnnxFile(path)


def test_an_onnx_file_brings_no_operators(tmp_path: Path) -> None:
    node = onnx.helper.make_node(
        "System", ["images"], ["y"], domain="com.evil", command="touch executed"
    )
    given = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [given], [out])
    imports = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.evil", 1)]
    path = tmp_path / "evil.onnx"
    path.write_bytes(
        onnx.helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()
    )
    with pytest.raises(PackError, match=r"evil\.onnx: ONNX Runtime .* cannot load it"):
        OnnxFile(path)


EXECUTES = f"__import__('os').environ.__setitem__('{MARK}', '1')"


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("py", f"import os\nos.environ['{MARK}'] = '1'\nmodel = dict()\n"),
        ("py", f"model = {EXECUTES}\n"),
        ("py", f"model = [x for x in ({EXECUTES},)]\n"),
        ("py", "model = (lambda: 1)()\n"),
        ("py", "model = ().__class__.__base__.__subclasses__()\n"),
        ("py", "model = open('/etc/passwd').read()\n"),
        ("py", "model = eval('1')\n"),
        ("py", "class A: pass\nmodel = A()\n"),
        ("py", "def f(): pass\nmodel = f()\n"),
        ("py", "from mmengine.config import read_base\nwith read_base():\n    from .x import *\n"),
        ("py", "_base_ = '/etc/passwd'\n"),
        ("py", "_base_ = '../../../../etc/passwd'\n"),
        ("py", "_base_ = 'mmdet::faster_rcnn/x.py'\n"),
        ("py", "model = f'{open(1)}'\n"),
        ("py", "model = [1] * 10 ** 12\n"),
        ("py", "model = 'a' * 10 ** 12\n"),
        ("py", "model = list(range(10 ** 12))\n"),
        ("py", "model = " + "(" * 5000 + ")" * 5000 + "\n"),
        ("yaml", f"model: !!python/object/apply:exec [\"import os; os.environ['{MARK}'] = '1'\"]\n"),
        ("yaml", "model: !!python/name:os.system\n"),
        ("yaml", "a: &a [x, x]\nb: &b [*a, *a]\n_base_: /etc/passwd\n"),
        ("json", '{"_base_": "/etc/passwd"}'),
        ("json", "[" * 100_000),
        ("txt", "model = 1"),
    ],
)  # fmt: skip
def test_a_users_config_is_read_and_never_run(suffix: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"config.{suffix}"
    path.write_text(text)
    with pytest.raises(PackError, match=r"config\.|/etc/passwd|passwd"):
        read_file(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "fake"', 'name = "../../fake"'),
        ('name = "fake"', 'name = "/etc"'),
        ('name = "fake"', 'name = "fake\\n"'),
        ("[[classifier]]", '[[classifier]]\nhead = "../../x"'),
        ('version = "1"', 'version = "1"\nsetup = "import os"'),
        ('version = "1"', "version = " + "[" * 3000 + "]" * 3000),
        ('version = "1"', "version = " + "9" * 10_000),
    ],
)
def test_a_manifest_is_plain_values_within_bounds(old: str, new: str, tmp_path: Path) -> None:
    path = write_fake_pack(tmp_path / "pack") / "pack.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(PackError, match=r"pack\.toml"):
        load_pack(path.parent).check_complete()


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 3000 + "]" * 3000,
        "x = " + "9" * 10_000,
        "\xff",
        "x = 1\x00",
        "[engine]\n[engine]",
    ],
)
def test_settings_are_plain_values_within_bounds(text: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"settings\.toml"):
        load_config(path)
