"""Convert torch networks for OpenVINO, and run them on this worker's share of the processor.

`openvino.convert_model` is not used: it traces every network three times.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skinbatch.models.runtime.kept import keep, kept
from skinbatch.models.runtime.numbers import tensors_of
from skinbatch.models.runtime.runtime import Precision, Runtime

# With this package, `import openvino` leaves files in the home folder, and reports on its use over
# the network unless the user has forbidden it. Without the package it does neither.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino.frontend import FrontEndManager  # noqa: E402
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: E402

_DEVICE = "CPU"
_core = openvino.Core()


class CompiledNetwork:
    """Run a compiled network, one photo after the other.

    A batch at once is no faster, and needs the memory of all its photos. Threads may share the
    network, because each has a request of its own. precision: in which it computes.
    """

    def __init__(self, compiled: openvino.CompiledModel, precision: Precision) -> None:
        self.precision: Precision = precision
        self._compiled = compiled
        self._own = threading.local()

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in order, each with N rows. x: (N, 3, H, W) float32."""
        photos = [self._infer(photo) for photo in x.split(1)]
        if len(photos) == 1:
            return photos[0]
        return tuple(torch.cat(outputs) for outputs in zip(*photos, strict=True))

    def _infer(self, photo: Tensor) -> tuple[Tensor, ...]:
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()

        outputs = request.infer([np.ascontiguousarray(photo.numpy())], share_inputs=True)
        return tuple(torch.from_numpy(outputs[output]) for output in self._compiled.outputs)


def compile_network(
    run: Callable[[Tensor], Any],
    module: nn.Module,
    examples: tuple[Tensor, Tensor],
    runtime: Runtime,
    precision: Precision,
) -> CompiledNetwork:
    """Return the network as OpenVINO runs it.

    The height or width of the input stays open if the two examples differ in it. One compiled
    network serves all sizes, because each further one would need memory and half a second of its
    own.

    Args:
        run: computes nested tensors from (N, 3, H, W) float32.
        module: holds the weights.
        examples: two inputs. The first holds one photo.
        runtime: the share of the processor.
        precision: the lowest that may be used.
    """
    first, second = examples
    sizes = zip(first.shape[1:], second.shape[1:], strict=True)
    shape = [1] + [a if a == b else -1 for a, b in sizes]
    precision = lowest(precision)
    options = _options(runtime, precision)

    graph = _traced(run, module, first)
    key = _key(graph, shape, options)
    if (data := kept(key)) is not None:
        return CompiledNetwork(_core.import_model(data, _DEVICE, options), precision)

    compiled = _core.compile_model(_converted(graph, shape), _DEVICE, options)
    keep(key, compiled.export_model().read())
    return CompiledNetwork(compiled, precision)


def version() -> str:
    """Return OpenVINO's version."""
    return str(openvino.get_version())


def lowest(precision: Precision) -> Precision:
    """Return the precision in which this processor computes if `precision` is allowed."""
    return "bf16" if precision == "bf16" and "BF16" in _capabilities() else "fp32"


def read_onnx(data: bytes, runtime: Runtime) -> openvino.CompiledModel:
    """Return an ONNX file's network in the file's own precision, compiled."""
    return _core.compile_model(_core.read_model(data), _DEVICE, _options(runtime, "fp32"))


def _options(runtime: Runtime, precision: Precision) -> dict[str, Any]:
    """Return the options that keep a worker to its own cores and its own precision.

    By default OpenVINO takes all cores of the machine, binds its threads to some of them, and
    computes in bf16 or fp16 where the processor does.
    """
    return {
        "INFERENCE_NUM_THREADS": runtime.threads * runtime.streams,
        "NUM_STREAMS": runtime.streams,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }


def _capabilities() -> list[str]:
    return list(_core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"))


def _traced(run: Callable[[Tensor], Any], module: nn.Module, x: Tensor) -> Any:
    """Return the operations that a network applies to an input, with its weights as constants."""
    with _without_gradients(module), torch.no_grad(), warnings.catch_warnings():
        # On values that became constants; the examples show whether they may.
        warnings.simplefilter("ignore")
        return torch.jit.trace(
            lambda given: tensors_of(run(given)), x, check_trace=False, strict=False
        )


@contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    """Let weights become constants inside this context."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _converted(graph: Any, shape: list[int]) -> openvino.Model:
    decoder = TorchScriptPythonDecoder(graph)
    frontend = FrontEndManager().load_by_framework("pytorch")
    loaded = frontend.load(decoder)
    model = frontend.convert(loaded)

    (given,) = model.inputs
    given.get_node().set_element_type(openvino.Type.f32)
    given.get_node().set_partial_shape(openvino.PartialShape(shape))
    model.validate_nodes_and_infer_types()
    return model


def _key(traced: Any, shape: list[int], options: dict[str, Any]) -> str:
    """Return the hash of everything that a compiled network depends on."""
    graph = traced.inlined_graph
    machine = [
        _core.get_property(_DEVICE, "FULL_DEVICE_NAME"),
        _capabilities(),
        torch.backends.cpu.get_cpu_capability(),
    ]
    facts = [openvino.get_version(), machine, shape, options, str(graph)]
    digest = hashlib.sha256(json.dumps(facts).encode())

    for node in graph.findAllNodes("prim::Constant"):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            value = node.t("value").detach().contiguous()
            digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
