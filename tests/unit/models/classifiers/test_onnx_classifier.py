"""Test that classifiers in ONNX files give what torch gives, and that those that do not fit their
stage are refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.config import ModelSettings
from skinbatch.errors import ModelOutputError, PackError
from skinbatch.models.build import build_classifier
from skinbatch.models.classifiers.onnx_classifier import OnnxClassifier, recognise
from skinbatch.models.preprocess import Normalisation, centre_square, pad_to_square
from skinbatch.models.stages import CalibrationTable, ClassifierStage
from tests.unit.models.onnx_files import export

CLASSES = ("rosacea", "lupus_erythematosus", "none")


class Small(nn.Module):
    """Return (N, outputs) for x (N, 3, 32, 32), through `end`."""

    def __init__(self, outputs: int = 3, end: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.out = nn.Linear(8, outputs)
        self.end = end or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.out(self.conv(x).relu().mean((2, 3))) * 3)


def file_of(path: Path, network: nn.Module | None = None, **how: Any) -> Path:
    return export(network or Small(), path, (1, 3, 32, 32), open_axes=(0,), **how)


def stage_of(**fields: Any) -> ClassifierStage:
    known: dict[str, Any] = {"arch": "onnx", "sha256": "0" * 64, "classes": CLASSES, "size": 32}
    return ClassifierStage(**(known | fields))


@pytest.fixture
def photos() -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((50, 70), (32, 32), (9, 40))]


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("outputs", ["logistic", "softmax"])
def test_probabilities_are_those_of_torch(
    tmp_path: Path, photos: list[NDArray[np.uint8]], fit: str, outputs: str
) -> None:
    path = file_of(tmp_path / "c.onnx")
    stage = stage_of(fit=fit, outputs=outputs, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    norm = Normalisation(stage.mean, stage.std)
    squares = [
        centre_square(p, 32) if fit == "crop" else pad_to_square(p, 32, norm.fill)[0]
        for p in photos
    ]
    logits = Small().eval()(norm.tensor(squares)).detach()
    expected = torch.sigmoid(logits) if outputs == "logistic" else torch.softmax(logits, 1)
    found = build_classifier(stage, path, "cpu", ModelSettings())(photos)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("outputs", ["logistic", "softmax"])
def test_a_calibration_scales_and_shifts_what_probabilities_are_made_of(
    tmp_path: Path, photos: list[NDArray[np.uint8]], outputs: str
) -> None:
    path = file_of(tmp_path / "c.onnx")
    table = CalibrationTable(scale=0.5, shift=(1.0, 0.0, -1.0))
    bare, fitted = stage_of(outputs=outputs), stage_of(outputs=outputs, calibration=table)
    logits = (
        Small()
        .eval()(Normalisation(bare.mean, bare.std).tensor([centre_square(p, 32) for p in photos]))
        .detach()
    )
    moved = logits * 0.5 + torch.tensor([1.0, 0.0, -1.0])
    expected = torch.sigmoid(moved) if outputs == "logistic" else torch.softmax(moved, 1)
    found = build_classifier(fitted, path, "cpu", ModelSettings())(photos)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert "calibration" not in bare.numbers()
    assert fitted.numbers()["calibration"] == {"scale": 0.5, "shift": [1.0, 0.0, -1.0]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"calibration": CalibrationTable(scale=1, shift=(0.0,))},
            "`shift` has 1 numbers for 3 classes",
        ),
        (
            {"calibration": CalibrationTable(scale=1, shift=(0.0,) * 3), "outputs": "none"},
            "made of logits",
        ),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage_of(**fields)


def test_a_file_that_ends_in_probabilities_is_taken_as_it_is(
    tmp_path: Path, photos: list[NDArray[np.uint8]]
) -> None:
    path = file_of(
        tmp_path / "c.onnx", Small(end=nn.Softmax(1)), metadata={"names": str(list(CLASSES))}
    )
    found = recognise(path, {}).fields
    assert found == {
        "parameters": 8 * 27 + 8 + 24 + 3,
        "size": 32,
        "classes": CLASSES,
        "outputs": "none",
    }
    probs = OnnxClassifier(path, stage_of(**found))(photos)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    raw = OnnxClassifier(file_of(tmp_path / "raw.onnx"), stage_of(outputs="softmax"))(photos)
    np.testing.assert_allclose(probs, raw, atol=1e-5)


def test_probabilities_are_not_made_probabilities_twice(tmp_path: Path) -> None:
    path = file_of(tmp_path / "c.onnx", Small(end=nn.Sigmoid()))
    with pytest.raises(
        PackError, match="output `output0` comes from Sigmoid already; set outputs = 'none'"
    ):
        OnnxClassifier(path, stage_of(outputs="logistic"))


def test_numbers_that_are_no_probabilities_are_an_error_of_the_model(
    tmp_path: Path, photos: list[NDArray[np.uint8]]
) -> None:
    classifier = OnnxClassifier(file_of(tmp_path / "c.onnx"), stage_of(outputs="none"))
    with pytest.raises(
        ModelOutputError, match=r"classifier `disease` \(c\.onnx\) gave .* as a probability"
    ):
        classifier([np.full((32, 32, 3), value, np.uint8) for value in (0, 255)])


def test_nan_stays_nan(tmp_path: Path) -> None:
    class Logarithm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.log(x.mean((2, 3)))

    path = file_of(tmp_path / "log.onnx", Logarithm())
    found = OnnxClassifier(path, stage_of())(
        [np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)]
    )
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


@pytest.mark.parametrize(
    ("outputs", "classes", "complaint"),
    [
        (
            4,
            CLASSES,
            r"output `output0` has 4 numbers for 3 classes \(rosacea, lupus_erythematosus, none\)",
        ),
        (
            1,
            ("acne", "no_acne"),
            r"has 1 numbers for 2 classes \(acne, no_acne\); .* name only the class",
        ),
    ],
)
def test_another_number_of_classes_is_refused(
    tmp_path: Path, outputs: int, classes: tuple[str, ...], complaint: str
) -> None:
    path = file_of(tmp_path / "c.onnx", Small(outputs))
    with pytest.raises(PackError, match=complaint):
        OnnxClassifier(path, stage_of(classes=classes))


def test_one_logistic_output_is_one_class(tmp_path: Path, photos: list[NDArray[np.uint8]]) -> None:
    assert OnnxClassifier(file_of(tmp_path / "c.onnx", Small(1)), stage_of(classes=("acne",)))(
        photos
    ).shape == (3, 1)


def test_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"input `images` is \? x 3 x 32 x 32, but size is 224"):
        OnnxClassifier(file_of(tmp_path / "c.onnx"), stage_of(size=224))


def test_an_output_of_other_dimensions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="output `output0` is N x 8 x 15 x 15, not N x 3"):
        OnnxClassifier(file_of(tmp_path / "map.onnx", nn.Conv2d(3, 8, 3, stride=2)), stage_of())


def test_two_outputs_are_refused_by_name(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.mean((2, 3)), x.amax((2, 3))

    path = file_of(tmp_path / "two.onnx", Two(), outputs=("mean", "max"))
    with pytest.raises(PackError, match="outputs are `mean`, `max`"):
        OnnxClassifier(path, stage_of())


def test_a_file_that_does_not_run_at_the_size_is_refused(tmp_path: Path) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(3 * 32 * 32, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x.reshape(1, -1))

    path = export(
        Flat(), tmp_path / "flat.onnx", (1, 3, 32, 32), open_axes=(2, 3), outputs=("scores",)
    )
    assert OnnxClassifier(path, stage_of(size=32)).classes == CLASSES
    with pytest.raises(PackError, match="input `images` cannot be 48 x 48: "):
        OnnxClassifier(path, stage_of(size=48))


def test_threads_share_a_classifier(tmp_path: Path, photos: list[NDArray[np.uint8]]) -> None:
    classifier = OnnxClassifier(file_of(tmp_path / "c.onnx"), stage_of())
    expected = classifier(photos)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: classifier(photos), range(40)):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert classifier([]).shape == (0, 3)
