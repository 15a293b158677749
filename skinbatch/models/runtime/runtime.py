"""Describe how a worker runs networks. Nothing here imports a framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RuntimeName = Literal["auto", "torch", "openvino"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """Choose the library that runs networks, and its share of the processor.

    name: `auto` and `openvino` take OpenVINO for each network that it runs on this processor with
    torch's numbers, and torch for the others. threads: cores that one call may use. streams: calls
    at the same time.
    """

    name: RuntimeName = "torch"
    threads: int = 1
    streams: int = 1
