"""Test which runtime an ONNX file gets on a CPU. The files and both runtimes are real."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from skinbatch.models.runtime.onnx import Arrays, RunOnnx, prepare_onnx
from skinbatch.models.runtime.runtime import Runtime

pytest.importorskip("openvino")
onnxruntime = pytest.importorskip("onnxruntime")

AUTO, OPENVINO = Runtime("auto"), Runtime("openvino")
EXAMPLE = {"x": np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 12)}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKINBATCH_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def network() -> bytes:
    """Return a file that doubles its input."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 12]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


class Counted:
    """Run the file on ONNX Runtime, and count the calls. pause: seconds that each takes longer."""

    def __init__(self, data: bytes, pause: float = 0.0) -> None:
        self.calls = 0
        self._session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        self._pause = pause

    def __call__(self, names: Sequence[str], given: Arrays) -> list[NDArray[Any]]:
        self.calls += 1
        time.sleep(self._pause)
        answers: list[NDArray[Any]] = self._session.run(list(names), dict(given))
        return answers


def prepared(data: bytes, own: RunOnnx, runtime: Runtime) -> RunOnnx:
    run = prepare_onnx("a.onnx", data, own, ["y"], [EXAMPLE], runtime)
    np.testing.assert_array_equal(run(["y"], EXAMPLE)[0], 2 * EXAMPLE["x"])
    return run


def test_openvino_runs_a_file_that_is_slower_on_onnx_runtime(network: bytes) -> None:
    slow = Counted(network, pause=0.05)
    assert prepared(network, slow, AUTO) is not slow


def test_onnx_runtime_runs_a_file_that_is_slower_on_openvino(
    network: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skinbatch.models.runtime import openvino_runtime

    read = openvino_runtime.read_onnx
    monkeypatch.setattr(openvino_runtime, "read_onnx", lambda *given: Slow(read(*given)))

    own = Counted(network)
    assert prepared(network, own, AUTO) is own
    assert prepared(network, own, OPENVINO) is not own


def test_later_workers_take_what_the_first_has_measured(network: bytes) -> None:
    slow = Counted(network, pause=0.05)
    prepared(network, slow, AUTO)

    later = Counted(network)
    assert prepared(network, later, AUTO) is not later
    assert later.calls == 1, "its numbers are compared, and it is not timed"


def test_workers_that_measure_at_the_same_time_take_the_same(
    network: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skinbatch.models.runtime import openvino_runtime

    read = openvino_runtime.read_onnx

    class Late(Counted):
        """Another worker, for which OpenVINO is slow, measures while this one does."""

        def __call__(self, names: Sequence[str], given: Arrays) -> list[NDArray[Any]]:
            if self.calls == 1:
                with monkeypatch.context() as patch:
                    patch.setattr(openvino_runtime, "read_onnx", lambda *file: Slow(read(*file)))
                    other = Counted(network)
                    assert prepared(network, other, AUTO) is other
            return super().__call__(names, given)

    late = Late(network, pause=0.05)
    assert prepared(network, late, AUTO) is late


class Slow:
    """Run a compiled file on OpenVINO, slowly."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def create_infer_request(self) -> Slow:
        self._request = self._compiled.create_infer_request()
        return self

    def infer(self, *given: Any, **how: Any) -> Any:
        time.sleep(0.05)
        return self._request.infer(*given, **how)
