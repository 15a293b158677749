"""Choose where a training runs, from the recipe's words to torch's."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch
import torch.distributed as dist

from skinbatch.errors import UsageError
from skinbatch.models.runtime.network import computes_bf16
from skinbatch.train.recipe_sections import RunSection


def choose_device(run: RunSection) -> torch.device:
    """Return the device.

    Raises UsageError for a GPU that does not exist, and for mixed precision without one.
    """
    there = torch.cuda.is_available()
    if run.device == "cuda" and not there:
        raise UsageError(
            "setting `run.device` is cuda, but torch finds no GPU here; set auto or cpu"
        )
    device = (
        torch.device("cuda", torch.cuda.current_device())
        if there and run.device != "cpu"
        else torch.device("cpu")
    )
    if run.precision == "amp" and device.type != "cuda":
        raise UsageError(
            "setting `run.precision` is amp, but there is no GPU to train on; set auto or fp32"
        )
    return device


def autocast_type(run: RunSection, device: torch.device) -> torch.dtype | None:
    """Return the type that is used where it is safe; None if everything is fp32."""
    if run.precision == "bf16":
        return torch.bfloat16 if computes_bf16(str(device)) else None
    return torch.float16 if device.type == "cuda" and run.precision != "fp32" else None


def loaders(run: RunSection, device: torch.device) -> int:
    """Return the number of processes that read and change photos ahead of the model.

    With a GPU, the cores are free for them.
    """
    if run.loader_threads is not None:
        return run.loader_threads
    cores = len(os.sched_getaffinity(0))
    return max(1, min(16, cores - 1) if device.type == "cuda" else cores // 2)


def processor() -> str:
    """Describe processor, cores and threads in words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            ln.split(":", 1)[1].strip()
            for ln in cpuinfo.read_text().splitlines()
            if ln.startswith("model name")
        ]
        model = names[0] if names else model
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    return f"{model}, {cores} core{'s' * (cores > 1)}, {threads} thread{'s' * (threads > 1)}"


def hardware(device: torch.device) -> str:
    """Describe GPU, processor and cores in words."""
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return gpu + processor()


def world() -> int:
    """Return the number of workers that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this worker's number; 0 for the first, which writes."""
    return dist.get_rank() if dist.is_initialized() else 0
