"""Test that a network runs on OpenVINO if it gives torch's numbers there, and otherwise on torch, with a line in the log."""

from __future__ import annotations

import logging
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from skinbatch.models.runtime import kept, network
from skinbatch.models.runtime.network import Network, prepare
from skinbatch.models.runtime.runtime import Runtime

pytest.importorskip("openvino")


class Small(nn.Module):
    """Return a map, and a list of its mean and None. x: (N, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        made = self.conv(x).relu()
        return made, [made.mean((2, 3)), None]


class ItsOwnSize(Small):
    """Compute with the height as a plain number, which tracing takes for a constant."""

    def forward(self, x: Tensor) -> Any:
        return self.conv(x) * float(x.shape[2])


class NotConvertible(Small):
    def forward(self, x: Tensor) -> Any:
        return torch.special.airy_ai(self.conv(x))


class Chance(Small):
    """Draw a random number at every call."""

    def forward(self, x: Tensor) -> Any:
        return self.conv(x) * torch.rand(
            1, generator=torch.Generator().manual_seed(int(time.monotonic_ns()))
        )


class Broken(Small):
    def forward(self, x: Tensor) -> Any:
        return self.conv(x) / torch.zeros(1) * torch.zeros(1)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKINBATCH_CACHE", str(tmp_path))
    return tmp_path / "networks"


def network_of(module: nn.Module, *, any_size: bool = True) -> Network:
    return Network(f"the {type(module).__name__}", module.eval(), module, (64, 96), any_size)


def on(name: Any, module: nn.Module, **how: Any) -> Any:
    return prepare(
        network_of(module), Runtime(name), how.get("device", "cpu"), how.get("precision", "fp32")
    )


def test_nested_outputs_of_any_shape_are_those_of_torch() -> None:
    module = Small()
    run = on("openvino", module)
    assert run is not module
    for shape in ((1, 3, 32, 32), (3, 3, 64, 40), (2, 3, 32, 32)):
        x = torch.rand(shape)
        (plain, (mean, nothing)), (made, (found, none)) = module(x), run(x)
        torch.testing.assert_close(made, plain, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-5)
        assert nothing is None and none is None


def test_outputs_are_not_overwritten_by_the_next_call() -> None:
    run = on("openvino", Small())
    first = run(torch.zeros(1, 3, 32, 32))[0]
    before = first.clone()
    run(torch.ones(1, 3, 32, 32))
    assert torch.equal(first, before)


def test_threads_share_a_network() -> None:
    module = Small()
    run = prepare(network_of(module), Runtime("openvino", threads=1, streams=2), "cpu", "fp32")
    inputs = [torch.full((1, 3, 16 + 8 * (n % 4), 16), n / 40) for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for x, (made, _) in zip(inputs, pool.map(run, inputs), strict=True):
            torch.testing.assert_close(made, module(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "module", [ItsOwnSize(), NotConvertible(), Chance(), Broken()], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("name", ["auto", "openvino"])
def test_torch_takes_over_and_the_log_names_the_network(
    name: str, module: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    run = on(name, module)
    assert run is module
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        f"the {type(module).__name__} runs on torch, not on OpenVINO: "
    )


def test_the_reason_says_how_far_the_numbers_are_off(caplog: pytest.LogCaptureFixture) -> None:
    on("auto", ItsOwnSize())
    assert "other numbers than torch's: output 0 differs by" in caplog.text


def test_constants_of_one_size_do_no_harm_if_there_is_only_one() -> None:
    module = ItsOwnSize()
    assert (
        prepare(network_of(module, any_size=False), Runtime("openvino"), "cpu", "fp32")
        is not module
    )


@pytest.mark.parametrize(("name", "level"), [("auto", logging.INFO), ("openvino", logging.WARNING)])
def test_without_openvino_torch_runs_everything(
    name: str, level: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import skinbatch.models.runtime as package

    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "skinbatch.models.runtime.openvino_runtime", raising=False)
    monkeypatch.delattr(package, "openvino_runtime", raising=False)
    module = Small()
    with caplog.at_level(logging.INFO):
        assert on(name, module) is module
    (record,) = caplog.records
    assert record.levelno == level and "pip install openvino" in record.getMessage()


def test_a_gpu_is_torchs(caplog: pytest.LogCaptureFixture) -> None:
    module = Small()
    assert on("openvino", module, device="cuda:1") is module
    assert "OpenVINO is for CPUs, and this worker has cuda:1" in caplog.text
    assert on("openvino", module, device="cuda", precision="fp16") is module


def test_weights_can_be_trained_afterwards() -> None:
    module = Small()
    on("openvino", module)
    assert all(weight.requires_grad for weight in module.parameters())


def test_a_processor_without_bf16_computes_in_fp32() -> None:
    import openvino

    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has bf16")
    x = torch.rand(2, 3, 40, 32)
    module = Small()
    assert torch.equal(on("openvino", module, precision="bf16")(x)[0], on("openvino", module)(x)[0])
    assert torch.equal(on("torch", module, precision="bf16")(x)[0], module(x)[0])


def test_torch_gives_fp32_numbers_from_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use torch's emulation of bf16, which is slow. Scoring uses bf16 only on processors that have it."""
    monkeypatch.setattr(network, "computes_bf16", lambda device: True)
    module, x = Small(), torch.rand(2, 3, 40, 32)
    (made, (mean, nothing)), (plain, _) = on("torch", module, precision="bf16")(x), module(x)
    assert made.dtype == mean.dtype == torch.float32 and nothing is None
    assert not torch.equal(made, plain)
    torch.testing.assert_close(made, plain, rtol=0.05, atol=0.02)


def test_the_second_worker_takes_the_network_from_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skinbatch.models.runtime import openvino_runtime

    x = torch.rand(1, 3, 32, 32)
    first = on("openvino", Small())(x)[0]
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o077 == 0

    monkeypatch.setattr(
        openvino_runtime, "_converted", lambda *_: pytest.fail("it was converted again")
    )
    assert torch.equal(on("openvino", Small())(x)[0], first)


def test_other_weights_are_another_network(folder: Path) -> None:
    x = torch.rand(1, 3, 32, 32)
    on("openvino", Small())
    other = Small()
    assert other.conv.bias is not None
    with torch.no_grad():
        other.conv.bias += 0.5
    torch.testing.assert_close(on("openvino", other)(x)[0], other(x)[0], rtol=1e-4, atol=1e-5)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("harm", ["cut", "flipped", "writable"])
def test_a_file_that_is_not_as_it_was_written_is_not_run(
    harm: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module, x = Small(), torch.rand(1, 3, 32, 32)
    on("openvino", module)
    (file,) = folder.iterdir()
    data = file.read_bytes()
    if harm == "writable":
        file.chmod(0o666)
    else:
        file.write_bytes(
            data[:-9] if harm == "cut" else data[:99] + bytes([data[99] ^ 1]) + data[100:]
        )

    assert kept.kept(file.name) is None
    torch.testing.assert_close(on("openvino", module)(x)[0], module(x)[0], rtol=1e-4, atol=1e-5)
    assert kept.kept(file.name) is not None, "it was not written again"
    assert not caplog.records


def test_a_disk_that_cannot_be_written_costs_nothing_but_time(folder: Path) -> None:
    folder.write_text("a file where the folder would be")
    module = Small()
    assert on("openvino", module) is not module


def test_what_nobody_reads_is_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep("old", b"1")
    os.utime(folder / "old", (1, 1))
    kept.keep("new", b"2")
    assert [file.name for file in folder.iterdir()] == ["new"]

    monkeypatch.setattr(kept, "MOST_BYTES", 100)
    os.utime(folder / "new", (time.time() - 60,) * 2)
    kept.keep("newer", b"3" * 50)
    assert [file.name for file in folder.iterdir()] == ["newer"]
