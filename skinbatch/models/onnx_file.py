"""Read, check and run ONNX files with ONNX Runtime."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from skinbatch.errors import PackError
from skinbatch.models.runtime.onnx import RunOnnx, prepare_onnx
from skinbatch.models.runtime.runtime import Runtime

# The element types that a network's input may have.
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

_REAL = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
)
# The second input of RT-DETR's own exports: the width and height in which boxes are given.
SIZES = "orig_target_sizes"
# The operators that change the form of numbers and not their meaning.
_PASS = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_ERRORS_ONLY = 3
_MOST_TEXT = 300


@dataclass(frozen=True, slots=True)
class Port:
    """Describe an input or output as the file declares it.

    type: `tensor(float)` and the like. shape: None for each dimension that the file leaves open.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]

    @property
    def text(self) -> str:
        """Return the shape for messages: `1 x 3 x ? x ?`."""
        return " x ".join("?" if n is None else str(n) for n in self.shape) or "of unknown shape"


class OnnxFile:
    """Run one network with one input on one device. Threads may share it, because it never changes.

    parameters: number of weights. metadata: as the exporter wrote it. operators: those of its
    graph. ends_in: maps an output to the operator that computes its numbers. sizes: the second
    input of RT-DETR's own exports, if the file has it.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Load and check the file.

        Args:
            path: the file.
            device: `cpu`, `cuda`, `cuda:1`. Without ONNX Runtime's CUDA provider the file runs on
                the CPU.

        Raises:
            PackError: names the file and the fault: not ONNX, weights in other files, NaN or
                infinite weights, an operator that ONNX Runtime lacks, several inputs, or an input
                that takes no RGB photos.
        """
        self.path = path
        try:
            data = path.read_bytes()
        except OSError as e:
            raise PackError(f"{path}: cannot be read: {e.strerror}") from None
        graph = _parsed(data, path)
        self.parameters = _check_weights(graph, path)
        self.ends_in = _ends(graph.graph)
        self.operators = {node.op_type for node in graph.graph.node}
        self._session = _session(data, path, device)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.outputs = tuple(_port(output) for output in self._session.get_outputs())
        inputs = [_port(given) for given in self._session.get_inputs()]
        self.sizes = next(
            (port for port in inputs if port.name == SIZES and port.type == "tensor(int64)"), None
        )
        self.input = self._only_input([port for port in inputs if port is not self.sizes])
        self.dtype = FLOATS[self.input.type]
        self._run: RunOnnx = self._session.run

    def run(self, batch: NDArray[np.float32], output: Port) -> list[NDArray[np.float32]]:
        """Return N arrays, one for each photo of the batch.

        batch: (N, 3, H, W) with any N. A file with a fixed N is run as often as needed.
        """
        return [values for (values,) in self.run_all(batch, (output,))]

    def run_all(
        self, batch: NDArray[np.float32], outputs: Sequence[Port]
    ) -> list[tuple[NDArray[np.float32], ...]]:
        """Return an array for each output, for each of the N photos of a batch as in `run`."""
        rows = self.input.shape[0] or max(1, len(batch))
        of_photos: list[tuple[NDArray[np.float32], ...]] = []
        for start in range(0, len(batch), rows):
            part = batch[start : start + rows]
            full = _filled(part, rows) if self.input.shape[0] else part
            feed = self._feed(full)
            arrays = [
                np.asarray(array, np.float32)
                for array in self._run([port.name for port in outputs], feed)
            ]
            of_photos += list(zip(*(array[: len(part)] for array in arrays), strict=True))
        return of_photos

    def run_with(self, runtime: Runtime, outputs: Sequence[Port], height: int, width: int) -> None:
        """Run the file on another runtime from now on, if its numbers are the same on examples.

        On a GPU, or if the runtime is torch, nothing changes.

        Args:
            runtime: choice of the library, and its share of the processor.
            outputs: the outputs that will be asked for.
            height, width: of the inputs.
        """
        if runtime.name == "torch" or self._session.get_providers()[0] != "CPUExecutionProvider":
            return
        rows = self.input.shape[0]
        noise = np.random.default_rng(0).random((rows or 2, 3, height, width), np.float32)
        examples = [self._feed(noise)] if rows else [self._feed(noise[:1]), self._feed(noise)]

        names = [port.name for port in outputs]
        self._run = prepare_onnx(
            self.path.name, self.path.read_bytes(), self._run, names, examples, runtime
        )

    def _feed(self, batch: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        feed: dict[str, NDArray[Any]] = {self.input.name: np.ascontiguousarray(batch, self.dtype)}
        if self.sizes is not None:
            feed[self.sizes.name] = np.tile(np.array(batch.shape[:1:-1], np.int64), (len(batch), 1))
        return feed

    def shape_of(self, output: Port, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of one photo's output for an input of that size.

        It is the declared shape if the file leaves nothing open, and otherwise found by running a
        grey photo.
        """
        declared = tuple(n for n in output.shape[1:] if n is not None)
        if (
            output.shape
            and len(declared) == len(output.shape) - 1
            and None not in self.input.shape[1:]
        ):
            return declared
        try:
            return self.run(np.full((1, 3, height, width), 0.5, np.float32), output)[0].shape
        except Exception as e:  # the runtime's errors have no class of their own
            self.refuse(
                f"input `{self.input.name}`", f"cannot be {height} x {width}: {_first_line(e)}"
            )

    def literal(self, field: str) -> Any:
        """Return a metadata field that exporters write as a Python literal; None if it is missing.

        Raises PackError if it is not a literal.
        """
        text = self.metadata.get(field)
        if text is None:
            return None
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            self.refuse(f"metadata `{field}`", f"is not a Python literal: {text[:80]!r}")

    def names(self) -> tuple[str, ...] | None:
        """Return the classes in label order from the metadata field `names`; None without it."""
        names = self.literal("names")
        if names is None:
            return None
        if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
            names = [names[i] for i in range(len(names))]
        if (
            not isinstance(names, list | tuple)
            or not names
            or not all(isinstance(n, str) and n for n in names)
        ):
            self.refuse(
                "metadata `names`",
                "is neither a list of names nor a dict of names by number from 0",
            )
        return tuple(names)

    def square_side(self, size: int | None) -> int | None:
        """Return the side of the network's square input; `size` if the file leaves it open.

        Raises PackError if the two differ.
        """
        sides = [n for n in self.input.shape[2:] if n is not None]
        if not sides:
            return size
        if size is not None and (max(sides) != size):
            self.refuse(f"input `{self.input.name}`", f"is {self.input.text}, but size is {size}")
        return max(sides)

    def refuse(self, part: str, fault: str) -> NoReturn:
        """Raise PackError naming the file and its part."""
        raise PackError(f"{self.path}: {part} {fault}")

    def _only_input(self, inputs: list[Port]) -> Port:
        if len(inputs) != 1:
            names = ", ".join(f"`{port.name}`" for port in inputs) or "none"
            raise PackError(
                f"{self.path}: a network has one input, the photos; this one has {names}"
            )
        (port,) = inputs
        if port.type not in FLOATS:
            self.refuse(
                f"input `{port.name}`", f"is {port.type}; export it for {' or '.join(FLOATS)}"
            )
        if len(port.shape) != 4 or port.shape[1] not in (3, None):
            way = "; export it with the channels first" if port.shape[-1:] == (3,) else ""
            self.refuse(f"input `{port.name}`", f"is {port.text}, not N x 3 x height x width{way}")
        return port


def _filled(batch: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    missing = rows - len(batch)
    return (
        batch
        if not missing
        else np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
    )


def _parsed(data: bytes, path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except Exception as e:  # protobuf's error; its class depends on how protobuf was built
        raise PackError(f"{path}: not readable as ONNX: {_first_line(e)}") from None
    if not model.graph.node:
        raise PackError(f"{path}: not readable as ONNX: there is no graph in it")
    return model


def _check_weights(model: onnx.ModelProto, path: Path) -> int:
    """Return the number of weights.

    A lone infinity is not a weight: operators read it as `no limit`.
    """
    parameters = 0
    for name, tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            way = f"import onnx; onnx.save(onnx.load('{path.name}'), 'whole.onnx')"
            raise PackError(
                f'{path}: weights `{name}` are in another file; combine the two: python -c "{way}"'
            )
        if tensor.data_type not in _REAL:
            continue
        try:
            values = onnx.numpy_helper.to_array(tensor)
        except ValueError as e:
            raise PackError(f"{path}: weights `{name}` are cut off: {_first_line(e)}") from None
        parameters += values.size if values.ndim else 0
        values = np.asarray(
            values, np.float64 if tensor.data_type == onnx.TensorProto.DOUBLE else np.float32
        )
        if np.isnan(values).any() or (values.size > 1 and np.isinf(values).any()):
            raise PackError(
                f"{path}: weights `{name}` have NaN or infinite numbers; the training went wrong"
            )
    return parameters


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yield every constant of the file with its name, in whatever branch or function it is."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, sparse.values
        yield sparse.values.name, sparse.indices
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Any) -> Iterator[tuple[str, onnx.TensorProto]]:
    for node in nodes:
        name = node.name or next(iter(node.output), node.op_type)
        for attribute in node.attribute:
            given = [attribute.t] if attribute.HasField("t") else []
            for tensor in (*given, *attribute.tensors):
                yield tensor.name or name, tensor
            sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for pair in (*sparse, *attribute.sparse_tensors):
                yield name, pair.values
                yield name, pair.indices
            inner = [attribute.g] if attribute.HasField("g") else []
            for graph in (*inner, *attribute.graphs):
                yield from _of_graph(graph)


def _ends(graph: onnx.GraphProto) -> dict[str, str]:
    """Map each output to the last operator before it that changes more than the form of numbers."""
    made_by = {name: node for node in graph.node for name in node.output}
    ends = {}
    for output in graph.output:
        node = made_by.get(output.name)
        while node is not None and node.op_type in _PASS and node.input[0] in made_by:
            node = made_by[node.input[0]]
        ends[output.name] = node.op_type if node is not None else ""
    return ends


def _session(data: bytes, path: Path, device: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Several batches run at once, each on its own thread. Threads that spin while they wait would
    # take cores from the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(data, options, providers=_providers(device))
    except Exception as e:  # the runtime's errors have no class of their own
        raise PackError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it: {_first_line(e)}"
        ) from None


def _providers(device: str) -> list[Any]:
    cpu = "CPUExecutionProvider"
    if (
        not device.startswith("cuda")
        or "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    ):
        return [cpu]
    options = {"device_id": torch.device(device).index or 0, "cudnn_conv_algo_search": "HEURISTIC"}
    return [("CUDAExecutionProvider", options), cpu]


def _port(value: Any) -> Port:
    return Port(
        value.name, value.type, tuple(n if isinstance(n, int) else None for n in value.shape)
    )


def _first_line(error: Exception) -> str:
    """Return the message of an error of the runtime, without the place in its sources before it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MOST_TEXT else f"…{text[-_MOST_TEXT:]}"
