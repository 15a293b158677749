"""Turn a network into a callable that runs it as fast as this processor can."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skinbatch.models.folding import example
from skinbatch.models.runtime.fallback import Unfit, first_line, load_openvino
from skinbatch.models.runtime.numbers import OutputTree, difference, tensors_of
from skinbatch.models.runtime.runtime import Precision, Runtime

RunNetwork = Callable[[Tensor], Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Network:
    """Hold a network as a runtime sees it.

    name: for messages. module: holds the weights. run: computes nested tensors from (N, 3, H, W)
    float32, for any N. size: height and width of the input. any_size: it reads other sizes as well.
    """

    name: str
    module: nn.Module
    run: RunNetwork
    size: tuple[int, int]
    any_size: bool = False

    def examples(self) -> tuple[Tensor, Tensor]:
        """Return two inputs. They differ in everything in which later inputs may differ."""
        height, width = self.size
        other = (height + 64, width - 32) if self.any_size else self.size
        return example(height, width), torch.cat((example(*other).flip(3), example(*other)))


def prepare(network: Network, runtime: Runtime, device: str, precision: Precision) -> RunNetwork:
    """Return a callable that gives the network's numbers, run by the best runtime there is.

    OpenVINO is not used on GPUs, nor if it cannot convert the network or gives other numbers on two
    examples. The log then names the network and the reason, and torch runs it.

    Args:
        network: in evaluation mode, float32, on the CPU.
        runtime: choice of the library, and its share of the processor.
        device: `cpu`, `cuda`, `cuda:1`.
        precision: the lowest that may be used. bf16 is used where the processor computes in it. For
            fp16 the network itself is converted, by the caller.

    Returns:
        A callable from (N, 3, H, W) float32 to nested float32 tensors of their own memory. Threads
        may share it as far as they may share the network.

    >>> run = prepare(network, Runtime("auto"), "cpu", "fp32")  # doctest: +SKIP
    >>> run(torch.zeros(1, 3, 224, 224)).shape  # doctest: +SKIP
    """
    if precision == "fp16":
        return network.run
    if runtime.name in ("auto", "openvino"):
        try:
            return _with_openvino(network, runtime, device, precision)
        except Unfit as e:
            e.tell(network.name, runtime, "torch")

    if precision == "bf16" and computes_bf16(device):
        return _autocast(network, device)
    return network.run


def computed_by(runtime: Runtime, device: str, precision: Precision) -> str:
    """Return what the last digits of a worker's numbers depend on: library, device and precision.

    Two workers with the same text compute the same numbers on processors of one kind, and otherwise
    numbers that differ in the last digits.

    >>> computed_by(Runtime("torch"), "cpu", "fp32")
    'torch on cpu in fp32'
    """
    library, lowest = "torch", precision
    if precision == "bf16" and not computes_bf16(device):
        lowest = "fp32"
    if runtime.name in ("auto", "openvino") and precision != "fp16":
        try:
            lowest = load_openvino(device).lowest(precision)
            library = "openvino"
        except Unfit:
            pass  # torch runs the networks
    return f"{library} on {device.split(':')[0]} in {lowest}"


def _with_openvino(
    network: Network, runtime: Runtime, device: str, precision: Precision
) -> RunNetwork:
    openvino_runtime = load_openvino(device)
    try:
        first, second = network.examples()
        with torch.no_grad():  # not inference_mode: explanations could not use its tensors
            right = network.run(second)
        tree = OutputTree(right)
        compiled = openvino_runtime.compile_network(
            network.run, network.module, (first, second), runtime, precision
        )
        outputs = compiled(second)
    # A user's network may fail in any way. It then fails on torch too, or runs there.
    except Exception as e:
        raise Unfit(first_line(e)) from e

    if wrong := difference(tensors_of(right), outputs, compiled.precision):
        raise Unfit(f"other numbers than torch's: {wrong}")
    return lambda x: tree.rebuilt(compiled(x))


def computes_bf16(device: str) -> bool:
    """Return whether torch computes in bf16 on this device without emulating it."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _autocast(network: Network, device: str) -> RunNetwork:
    """Return a callable that lets torch compute in bf16, or in fp32 if the outputs do not allow it."""
    try:
        with torch.no_grad():
            tree = OutputTree(network.run(network.examples()[0]))
    # A user's network may fail in any way on an example and still work on photos.
    except Exception as e:
        log.warning("%s is computed in fp32, not in bf16: %s", network.name, first_line(e))
        return network.run

    def in_bf16(x: Tensor) -> Any:
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            output = network.run(x)
        return tree.rebuilt([tensor.float() for tensor in tensors_of(output)])

    return in_bf16
