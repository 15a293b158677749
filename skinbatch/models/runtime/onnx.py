"""Let OpenVINO run ONNX files for which it gives ONNX Runtime's numbers, sooner."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from skinbatch.models.runtime.fallback import Unfit, first_line, load_openvino
from skinbatch.models.runtime.kept import keep, kept
from skinbatch.models.runtime.numbers import difference
from skinbatch.models.runtime.runtime import Runtime

Arrays = Mapping[str, NDArray[Any]]
# (names of outputs, inputs) -> those outputs.
RunOnnx = Callable[[Sequence[str], Arrays], list[NDArray[Any]]]
# Both runtimes are timed in turns, so often. ONNX Runtime has to be faster by more than the noise.
_TURNS = 4
_CLEARLY = 0.9
# What is kept for the later workers.
_ONNX_RUNTIME, _OPENVINO = b"onnxruntime", b"openvino"
log = logging.getLogger(__name__)


def prepare_onnx(
    name: str,
    data: bytes,
    run: RunOnnx,
    outputs: Sequence[str],
    examples: Sequence[Arrays],
    runtime: Runtime,
) -> RunOnnx:
    """Return a callable that runs the file on a CPU by the best runtime there is.

    `openvino` takes OpenVINO where its numbers are right, `auto` the faster one. The first worker
    on a machine measures it, and the later ones take the same.

    Args:
        name: of the file, for messages.
        data: the file.
        run: runs it on ONNX Runtime.
        outputs: names of the outputs that will be asked for.
        examples: inputs for which the numbers are compared. The last one is timed.
        runtime: another one than torch, and its share of the processor.
    """
    try:
        openvino = load_openvino("cpu")
        key = _key(data, examples, runtime, openvino.version())
        if runtime.name == "auto" and kept(key) == _ONNX_RUNTIME:
            return run
        infer = _with_openvino(openvino, data, run, outputs, examples, runtime)
    except Unfit as e:
        e.tell(name, runtime, "ONNX Runtime")
        return run

    if runtime.name == "openvino" or kept(key) == _OPENVINO:
        return infer

    own, other = _seconds(run, infer, outputs, examples[-1])
    log.info("%s takes %.1f ms on ONNX Runtime, %.1f on OpenVINO", name, 1e3 * own, 1e3 * other)
    choice = kept(key)  # of a worker that has measured at the same time
    if choice is None:
        choice = _ONNX_RUNTIME if own < _CLEARLY * other else _OPENVINO
        keep(key, choice)
    return run if choice == _ONNX_RUNTIME else infer


def _key(data: bytes, examples: Sequence[Arrays], runtime: Runtime, openvino: str) -> str:
    """Return the hash of everything that decides which runtime is faster on a machine."""
    shapes = [{key: value.shape for key, value in example.items()} for example in examples]
    machine = torch.backends.cpu.get_cpu_capability()
    facts = (onnxruntime.__version__, openvino, machine, shapes, runtime)
    return hashlib.sha256(data + repr(facts).encode()).hexdigest()


def _seconds(
    one: RunOnnx, other: RunOnnx, outputs: Sequence[str], example: Arrays
) -> tuple[float, float]:
    """Return the shortest of several runs of each, in turns, so that both meet the same load."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_TURNS):
        for run, taken in zip((one, other), times, strict=True):
            start = time.perf_counter()
            run(outputs, example)
            taken.append(time.perf_counter() - start)
    return min(times[0]), min(times[1])


def _with_openvino(
    openvino: ModuleType,
    data: bytes,
    run: RunOnnx,
    outputs: Sequence[str],
    examples: Sequence[Arrays],
    runtime: Runtime,
) -> RunOnnx:
    try:
        compiled = openvino.read_onnx(data, runtime)
        own = threading.local()

        def infer(names: Sequence[str], given: Arrays) -> list[NDArray[Any]]:
            request = getattr(own, "request", None)
            if request is None:
                request = own.request = compiled.create_infer_request()
            answers = request.infer(dict(given), share_inputs=True)
            return [answers[output_name] for output_name in names]

        pairs = [(run(outputs, example), infer(outputs, example)) for example in examples]
    except Unfit:
        raise
    except Exception as e:  # a file may fail in any way, and ONNX Runtime runs it then
        raise Unfit(first_line(e)) from e

    for right, other in pairs:
        if wrong := difference(_tensors(right), _tensors(other), "fp32"):
            raise Unfit(f"other numbers than ONNX Runtime's: {wrong}")

    return infer


def _tensors(arrays: Sequence[NDArray[Any]]) -> list[Tensor]:
    return [torch.from_numpy(np.asarray(array)) for array in arrays]
