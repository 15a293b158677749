"""Test what an ONNX file must be: one network, complete, finite, with one input of photos.

Errors name the file and the part.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.errors import PackError
from skinbatch.models.onnx_file import OnnxFile
from tests.unit.models.onnx_files import export

SHAPE = (1, 3, 16, 16)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return export(
        Small(), tmp_path / "small.onnx", SHAPE, open_axes=(0,), metadata={"names": "{0: 'a'}"}
    )


def changed(path: Path, weights: NDArray[np.float32], name: str = "conv.weight") -> Path:
    model = onnx.load(path)
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, name))
    onnx.save(model, path)
    return path


def test_a_file_says_what_it_takes_and_gives(path: Path) -> None:
    file = OnnxFile(path)
    assert (file.input.name, file.input.shape) == ("images", (None, 3, 16, 16))
    assert [(port.name, port.shape) for port in file.outputs] == [("output0", (None, 4))]
    assert file.metadata == {"names": "{0: 'a'}"} and file.names() == ("a",)
    assert file.parameters == 4 * 3 * 9 + 4


@pytest.mark.parametrize("fixed", [None, 1, 3])
def test_any_number_of_photos_gives_what_torch_gives(tmp_path: Path, fixed: int | None) -> None:
    network = Small()
    path = export(
        network, tmp_path / "x.onnx", (fixed or 1, *SHAPE[1:]), open_axes=() if fixed else (0,)
    )
    file = OnnxFile(path)
    photos = torch.rand(5, *SHAPE[1:])
    found = np.stack(file.run(photos.numpy(), file.outputs[0]))
    np.testing.assert_allclose(found, network(photos).detach().numpy(), atol=1e-5)


def test_the_threads_are_those_of_torch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        options = OnnxFile(path)._session.get_session_options()
    finally:
        torch.set_num_threads(before)
    assert options.intra_op_num_threads == 3


def test_without_a_cuda_provider_a_file_runs_on_the_cpu(path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    assert OnnxFile(path, "cuda:0")._session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(path: Path, bad: float) -> None:
    weights = np.ones((4, 3, 3, 3), np.float32)
    weights[1, 2, 0, 0] = bad
    with pytest.raises(PackError, match=r"small\.onnx.*`conv\.weight`.*NaN or infinite"):
        OnnxFile(changed(path, weights))


def test_weights_in_a_branch_are_looked_at_too(tmp_path: Path) -> None:
    def branch(name: str, value: float) -> onnx.GraphProto:
        tensor = onnx.helper.make_tensor("", onnx.TensorProto.FLOAT, [2], [value, value])
        node = onnx.helper.make_node("Constant", [], [f"{name}_out"], value=tensor)
        out = onnx.helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, [2])
        return onnx.helper.make_graph([node], name, [], [out])

    nodes = [
        onnx.helper.make_node(
            "Constant",
            [],
            ["yes"],
            value=onnx.helper.make_tensor("", onnx.TensorProto.BOOL, [], [1]),
        ),
        onnx.helper.make_node(
            "If",
            ["yes"],
            ["y"],
            then_branch=branch("then", 1.0),
            else_branch=branch("else", np.nan),
        ),
    ]
    given = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    path = tmp_path / "branch.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [given], [out])), path)
    with pytest.raises(PackError, match="`else_out`"):
        OnnxFile(path)


def test_weights_in_another_file_are_refused_until_they_are_in_one(path: Path) -> None:
    onnx.save_model(
        onnx.load(path), path, save_as_external_data=True, location="more.bin", size_threshold=0
    )
    with pytest.raises(
        PackError, match=r"`conv\.(weight|bias)` are in another file; combine the two: python -c"
    ) as e:
        OnnxFile(path)
    program = str(e.value).split('"')[1]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=path.parent)
    assert OnnxFile(path.parent / "whole.onnx").parameters == 4 * 3 * 9 + 4


@pytest.mark.parametrize("data", [b"", b"not a network", b"PK\x03\x04" + bytes(100)])
def test_what_is_not_onnx_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    with pytest.raises(PackError, match=r"x\.onnx: not readable as ONNX"):
        OnnxFile(path)


def test_a_file_cut_off_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(PackError, match=r"small\.onnx"):
        OnnxFile(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"gone\.onnx: cannot be read: No such file"):
        OnnxFile(tmp_path / "gone.onnx")


def test_an_unknown_operator_is_named(path: Path) -> None:
    model = onnx.load(path)
    next(node for node in model.graph.node if node.op_type == "Conv").op_type = "Levitate"
    onnx.save(model, path)
    with pytest.raises(PackError, match=r"ONNX Runtime .* cannot load it: .*Levitate"):
        OnnxFile(path)


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ("{0: 'a', 2: 'b'}", "neither a list"),
        ("{0: 1}", "neither a list"),
        ("__import__('os')", "not a Python literal"),
    ],
)
def test_class_names_that_make_no_sense_are_refused(path: Path, names: str, fault: str) -> None:
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"names": names})
    onnx.save(model, path)
    with pytest.raises(PackError, match=f"metadata `names` .*{fault}"):
        OnnxFile(path).names()


def test_an_input_that_is_no_photo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="input `images` is 1 x 4 x 8 x 8"):
        OnnxFile(export(nn.Conv2d(4, 1, 1), tmp_path / "four.onnx", (1, 4, 8, 8)))


def test_two_inputs_are_refused_by_name(tmp_path: Path) -> None:
    names = ("first", "second")
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 8, 8])
        for name in (*names, "y")
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", names, ["y"])], "g", ports[:2], ports[2:]
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(
        onnx.helper.make_model(graph, ir_version=8, opset_imports=[opset]), tmp_path / "two.onnx"
    )
    with pytest.raises(PackError, match="`first`, `second`"):
        OnnxFile(tmp_path / "two.onnx")
