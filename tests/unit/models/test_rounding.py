"""Test that rounded weights are the same in both precisions, and that a network stays nearly the same."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from jobs.round_weights import round_weights
from skinbatch.models.folding import example, fold_batch_norms
from skinbatch.models.manifest import write_manifest
from skinbatch.models.pack import load_pack
from skinbatch.models.rounding import round_to_bf16
from skinbatch.models.weights import load_weights, read_weights, save_state


def network() -> nn.Module:
    """Return convolutions with and without norms, and a linear layer, with odd weights and statistics."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8, eps=1e-3),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data.uniform_(0.3, 1.7)
            assert module.running_var is not None
            module.weight.data[:3] = torch.tensor([-module.weight[0].item(), 0.0, 1e-3])
            module.running_var.data[3] = 1e-6
    return made.eval()


def test_weights_are_exact_in_bf16_after_folding_and_storing(tmp_path: Path) -> None:
    rounded = network()
    assert round_to_bf16(rounded, lambda: rounded(example(32, 32))) == 4

    save_state(rounded.state_dict(), tmp_path / "rounded", exact_vectors=True)
    load_weights(rounded, read_weights(tmp_path / "rounded"), "rounded")
    assert fold_batch_norms(rounded, lambda: rounded(example(32, 32))) == 2
    weights = [m.weight for m in rounded.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for weight in weights:
        assert torch.allclose(weight, weight.bfloat16().float(), rtol=1e-6, atol=1e-7)


def test_a_rounded_network_gives_nearly_the_same_numbers() -> None:
    before = network()
    rounded = copy.deepcopy(before)
    round_to_bf16(rounded, lambda: rounded(example(32, 32)))

    with torch.no_grad():
        right, made = before(example(32, 32)), rounded(example(32, 32))
    assert not torch.equal(made, right)
    assert torch.allclose(made, right, rtol=0.02, atol=0.02)


def test_a_rounded_network_is_trained_as_before() -> None:
    """Its norms use the statistics of a batch then, and the sizes of its weights set the pace."""
    before = network()
    rounded = copy.deepcopy(before)
    round_to_bf16(rounded, lambda: rounded(example(32, 32)))
    for one, other in zip(before.modules(), rounded.modules(), strict=True):
        if isinstance(one, nn.Conv2d) and isinstance(other, nn.Conv2d):
            usual = slice(4 if one.out_channels == 8 else 0, None)
            ratio = (other.weight / one.weight)[usual].abs()
            assert ratio.min() > 0.7 and ratio.max() < 1.43

    with torch.no_grad():
        right, made = before.train()(example(32, 32)), rounded.train()(example(32, 32))
    assert torch.allclose(made, right, rtol=0.02, atol=0.02)


def test_a_network_that_was_rounded_does_not_change_again() -> None:
    once = network()
    round_to_bf16(once, lambda: once(example(32, 32)))
    twice = copy.deepcopy(once)
    round_to_bf16(twice, lambda: twice(example(32, 32)))
    for name, value in once.state_dict().items():
        assert torch.allclose(value, twice.state_dict()[name], rtol=1e-5, atol=1e-7), name


@pytest.mark.slow
def test_a_whole_pack_is_rounded(tmp_path: Path) -> None:
    pack = load_pack("starter")
    for name in pack.files:
        (tmp_path / name).write_bytes((pack.directory / name).read_bytes())
    write_manifest(round_weights(pack, tmp_path), tmp_path)

    rounded = load_pack(tmp_path)
    rounded.verify()
    assert rounded.stages.keys() == pack.stages.keys()
