"""Test the plain CNN of the lesion paper against the table in its Figure 3."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.errors import PackError
from skinbatch.models.classifiers.classifier import PLAIN_CNN, ClassifierSpec, TorchClassifier
from skinbatch.models.classifiers.cnn_multilabel import MultiLabelCNN
from skinbatch.models.preprocess import Normalisation

Floats = NDArray[np.floating]

FIGURE_3 = [
    # layer of the figure, ours, output as Keras prints it (height, width, channels), parameters
    ("conv2d_4", "block1.conv", (412, 412, 16), 1_216),
    ("batch_normalization_4", "block1.bn", (412, 412, 16), 64),
    ("max_pooling2d_4", "block1.pool", (206, 206, 16), 0),
    ("dropout_9", "block1.dropout", (206, 206, 16), 0),
    ("conv2d_5", "block2.conv", (202, 202, 32), 12_832),
    ("max_pooling2d_5", "block2.pool", (101, 101, 32), 0),
    ("batch_normalization_5", "block2.bn", (101, 101, 32), 128),
    ("dropout_10", "block2.dropout", (101, 101, 32), 0),
    ("conv2d_6", "block3.conv", (97, 97, 64), 51_264),
    ("max_pooling2d_6", "block3.pool", (48, 48, 64), 0),
    ("batch_normalization_6", "block3.bn", (48, 48, 64), 256),
    ("dropout_11", "block3.dropout", (48, 48, 64), 0),
    ("conv2d_7", "block4.conv", (44, 44, 64), 102_464),
    ("max_pooling2d_7", "block4.pool", (22, 22, 64), 0),
    ("batch_normalization_7", "block4.bn", (22, 22, 64), 256),
    ("dropout_12", "block4.dropout", (22, 22, 64), 0),
    # flatten_4: (30976,), the input of dense_7, whose row is misprinted as 3,965,856
    ("dense_7", "fc1", (128,), 3_965_056),
    ("dropout_13", "dropout1", (128,), 0),
    ("dense_8", "fc2", (64,), 8_256),
    ("dropout_14", "dropout2", (64,), 0),
    ("dense_9", "out", (4,), 260),
]


def parameters(module: nn.Module) -> int:
    """Count parameters as Keras does: with running statistics, without counters."""
    return sum(
        t.numel()
        for name, t in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    )


def test_every_layer_has_the_output_and_the_parameters_of_the_figure_in_its_order() -> None:
    network = MultiLabelCNN(4).eval()
    seen: list[tuple[str, tuple[int, ...], int]] = []
    flattened: list[tuple[int, ...]] = []

    def watch(name: str) -> None:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            shape = output.permute(0, 2, 3, 1).shape if output.ndim == 4 else output.shape
            seen.append((name, tuple(shape[1:]), parameters(module)))
            if name == "fc1":
                flattened.append(tuple(inputs[0].shape[1:]))

        network.get_submodule(name).register_forward_hook(hook)

    for _, name, _, _ in FIGURE_3:
        watch(name)
    with torch.inference_mode():
        network(torch.rand(1, 3, 416, 416))
    assert seen == [(name, shape, count) for _, name, shape, count in FIGURE_3]
    assert flattened == [(30_976,)]


def test_the_counts_of_parameters_are_those_of_the_paper() -> None:
    network = MultiLabelCNN(4)
    assert parameters(network) == 4_142_052
    assert sum(p.numel() for p in network.parameters()) == 4_141_700
    assert parameters(network) - sum(p.numel() for p in network.parameters()) == 352


def test_every_convolution_and_dense_layer_but_the_last_has_a_relu() -> None:
    assert sum(isinstance(module, nn.ReLU) for module in MultiLabelCNN(4).modules()) == 6


@torch.inference_mode()
def test_weights_of_keras_fit_transposed_and_in_their_order() -> None:
    """Run the forward pass in Keras's layout (channels last, valid padding, epsilon 1e-3) over Keras's kernels."""
    rng = np.random.default_rng(2)
    network = MultiLabelCNN(4, size=80).eval()
    state: dict[str, Tensor] = {}
    x: Floats = rng.random((80, 80, 3), np.float32)
    feature: Floats = x
    channels = (16, 32, 64, 64)
    for block, out in enumerate(channels, start=1):
        kernel = rng.normal(
            0, (2 / (25 * feature.shape[2])) ** 0.5, (5, 5, feature.shape[2], out)
        ).astype(np.float32)
        bias, gamma, beta, mean = (rng.normal(0.2, 0.2, out).astype(np.float32) for _ in range(4))
        variance = rng.uniform(0.001, 1, out).astype(np.float32)
        rows = np.stack([feature[i : feature.shape[0] - 4 + i] for i in range(5)], -1)
        windows = np.stack([rows[:, i : feature.shape[1] - 4 + i] for i in range(5)], -1)
        feature = np.maximum(np.einsum("yxchw,hwco->yxo", windows, kernel) + bias, 0)

        def norm(values: Floats) -> Floats:
            return gamma * (values - mean) / np.sqrt(variance + 1e-3) + beta  # noqa: B023

        def pool(values: Floats) -> Floats:
            h, w = values.shape[0] // 2, values.shape[1] // 2
            return values[: 2 * h, : 2 * w].reshape(h, 2, w, 2, -1).max((1, 3))

        feature = pool(norm(feature)) if block == 1 else norm(pool(feature))
        name = f"block{block}"
        arrays = {"conv.weight": kernel.transpose(3, 2, 0, 1), "conv.bias": bias}
        arrays |= {
            "bn.weight": gamma,
            "bn.bias": beta,
            "bn.running_mean": mean,
            "bn.running_var": variance,
        }
        state |= {f"{name}.{part}": torch.tensor(value) for part, value in arrays.items()}
    flat: Floats = feature.reshape(-1)
    for name, out in (("fc1", 128), ("fc2", 64), ("out", 4)):
        dense = rng.normal(0, (2 / len(flat)) ** 0.5, (len(flat), out)).astype(np.float32)
        flat = flat @ dense if name == "out" else np.maximum(flat @ dense, 0)
        state |= {f"{name}.weight": torch.tensor(dense.T.copy()), f"{name}.bias": torch.zeros(out)}
    network.load_state_dict(state, strict=False)
    ours = network(torch.tensor(x).permute(2, 0, 1)[None])[0].numpy()
    np.testing.assert_allclose(ours, flat, rtol=1e-3, atol=1e-3)


def test_the_flattened_order_is_row_column_channel() -> None:
    network = MultiLabelCNN(1, size=108).eval()  # 3 x 3 places are left
    seen: list[Tensor] = []
    network.fc1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    maps: list[Tensor] = []
    network.block4.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.inference_mode():
        network(torch.rand(1, 3, 108, 108))
    ((channels, height, width),) = [tuple(m.shape[1:]) for m in maps]
    assert (channels, height, width) == (64, 3, 3)
    assert torch.equal(seen[0].reshape(height, width, channels), maps[0][0].permute(1, 2, 0))


def test_photos_reach_it_in_0_to_1_and_come_out_as_logistic_probabilities() -> None:
    spec = ClassifierSpec(
        PLAIN_CNN,
        ("comedone", "nodule", "papule", "pustule"),
        size=96,
        normalisation=Normalisation((0.0,) * 3, (1.0,) * 3),
    )
    torch.manual_seed(0)
    classifier = TorchClassifier(spec, MultiLabelCNN(4, 96).state_dict())
    seen: list[Tensor] = []
    classifier.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    photo = np.zeros((120, 120, 3), np.uint8)
    photo[:, 60:] = 255
    (probabilities,) = classifier([photo])
    assert (float(seen[0].min()), float(seen[0].max())) == (0, 1)
    assert probabilities.shape == (4,) and ((probabilities > 0) & (probabilities < 1)).all()


def test_an_input_of_which_nothing_is_left_is_refused() -> None:
    assert MultiLabelCNN(4, 76).fc1.in_features == 64
    with pytest.raises(PackError, match="does not read inputs of 75 px"):
        MultiLabelCNN(4, 75)
