"""Let OpenVINO run ONNX files for which it gives ONNX Runtime's numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skinbatch.models.runtime.base import Runtime
from skinbatch.models.runtime.fallback import Unfit, first_line, load_openvino
from skinbatch.models.runtime.numbers import difference

Arrays = Mapping[str, NDArray[Any]]
# (names of outputs, inputs) -> those outputs.
RunOnnx = Callable[[Sequence[str], Arrays], list[NDArray[Any]]]


def prepare_onnx(
    name: str,
    data: bytes,
    run: RunOnnx,
    outputs: Sequence[str],
    examples: Sequence[Arrays],
    runtime: Runtime,
) -> RunOnnx:
    """Return a callable that runs the file on a CPU by the best runtime there is.

    Args:
        name: of the file, for messages.
        data: the file.
        run: runs it on ONNX Runtime.
        outputs: names of the outputs that will be asked for.
        examples: inputs for which the numbers are compared.
        runtime: another one than torch, and its share of the processor.
    """
    try:
        return _with_openvino(data, run, outputs, examples, runtime)
    except Unfit as e:
        e.tell(name, runtime, "ONNX Runtime")
        return run


def _with_openvino(
    data: bytes, run: RunOnnx, outputs: Sequence[str], examples: Sequence[Arrays], runtime: Runtime
) -> RunOnnx:
    try:
        compiled = load_openvino("cpu").read_onnx(data, runtime)
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
