"""Run classifiers from ONNX files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skinbatch.errors import ModelOutputError
from skinbatch.models.classifiers.classifier import probabilities
from skinbatch.models.findings import ASSUMED, Recognised
from skinbatch.models.onnx_file import OnnxFile, Port
from skinbatch.models.preprocess import Normalisation, centre_square, pad_to_square
from skinbatch.models.protocols import InputKind
from skinbatch.models.runtime.runtime import Runtime
from skinbatch.models.stages import ClassifierStage

_MADE_PROBABLE = ("Sigmoid", "Softmax")
_SLACK = 1e-3


def recognise(path: Path, given: Mapping[str, Any]) -> Recognised:
    """Return the settings that follow from the file itself, with the source of each.

    These are `size` and `classes` if it gives them, `outputs` if its graph or its numbers show
    them, `mean` and `std` of Ultralytics' exports, and `parameters`.

    given: settings that the user set; they override the file's.

    Raises PackError for a file of another task, and if nothing shows how its numbers become
    probabilities.
    """
    file = OnnxFile(path)
    task = file.metadata.get("task", "classify")
    if task != "classify":
        file.refuse("metadata `task`", f"is `{task}`; only `classify` is supported here")
    recognised = _recognised(file, given)
    output = _only_output(file)
    # An output that is not a row of numbers is refused when the model is built.
    is_row = len(output.shape) in (0, 2)
    if "outputs" not in recognised.fields and "outputs" not in given and is_row:
        file.refuse(
            f"output `{output.name}`",
            "has no visible softmax or sigmoid, and nothing records how it was trained. Set outputs in a file "
            'for --config: outputs = "softmax" (one class a photo), "logistic" (each class for itself), or "none" (they are '
            "probabilities already)",
        )
    return recognised


def _recognised(file: OnnxFile, given: Mapping[str, Any]) -> Recognised:
    fields: dict[str, Any] = {"parameters": file.parameters}
    sources = {
        "size": f"{ASSUMED}: the default; set size in a file for --config",
        "pixels": f"{ASSUMED}: those of ImageNet, as for most networks; set mean and std in a file for --config",
    }
    if (size := file.square_side(None)) is not None:
        fields["size"] = size
        sources["size"] = f"input `{file.input.name}`"
    if (names := file.names()) is not None:
        fields["classes"] = names
        sources["classes"] = "metadata `names`"
    if "ultralytics" in file.metadata.get("author", "").lower():
        fields |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        sources["pixels"] = "the metadata are Ultralytics', whose classifiers read 0 to 1"

    ends_in = file.ends_in[_only_output(file).name]
    if ends_in in _MADE_PROBABLE:
        fields["outputs"] = "none"
        sources["outputs"] = f"its graph ends in {ends_in}"
    elif ends_in == "LogSoftmax":
        fields["outputs"] = "softmax"
        sources["outputs"] = "its graph ends in LogSoftmax"
    elif (size := fields.get("size") or given.get("size")) is not None and _sum_to_one(file, size):
        fields["outputs"] = "none"
        sources["outputs"] = "on examples its numbers are within 0 to 1 and add up to 1"
    return Recognised(fields, sources)


def _sum_to_one(file: OnnxFile, size: int) -> bool:
    """Return whether the file's numbers are shares of 1, for photos of noise and of one colour."""
    height, width = (side or size for side in file.input.shape[2:])
    noise = np.random.default_rng(0).standard_normal((2, 3, height, width)).astype(np.float32)
    noise[1] = 0.5
    rows = np.stack(file.run(noise, _only_output(file)))
    is_share = (
        rows.ndim == 2
        and rows.shape[1] > 1
        and bool(((rows >= -_SLACK) & (rows <= 1 + _SLACK)).all())
    )
    return is_share and bool(np.allclose(rows.sum(1), 1, atol=_SLACK))


class OnnxClassifier:
    """Implement the `Classifier` protocol with a file of one input and one output.

    The input is (N, 3, size, size), the output (N, classes). The file decides the precision.
    Threads may share it.
    """

    def __init__(
        self,
        path: Path,
        stage: ClassifierStage,
        device: str = "cpu",
        runtime: Runtime | None = None,
    ) -> None:
        """Load the file.

        Raises PackError naming the file and the input or output that does not match the stage.
        """
        self.head = stage.head
        self.classes = stage.classes
        self.input: InputKind = stage.input
        self.threshold = stage.threshold
        self._stage = stage
        self._normalisation = Normalisation(stage.mean, stage.std)
        self._file = OnnxFile(path, device)
        if any(side not in (stage.size, None) for side in self._file.input.shape[2:]):
            shape = self._file.input.text
            self._file.refuse(
                f"input `{self._file.input.name}`", f"is {shape}, but size is {stage.size}"
            )
        self._output = _only_output(self._file)
        self._check_output()
        self._file.run_with(runtime or Runtime(), (self._output,), stage.size, stage.size)

    def _check_output(self) -> None:
        name, made_by = f"output `{self._output.name}`", self._file.ends_in[self._output.name]
        shape = self._file.shape_of(self._output, self._stage.size, self._stage.size)
        number = len(self.classes)
        if len(shape) != 1:
            dimensions = " x ".join(map(str, ("N", *shape)))
            self._file.refuse(name, f"is {dimensions}, not N x {number}, a number for each class")
        if shape[0] != number:
            way = (
                "; with one number for two classes, name only the class that the number stands for"
            )
            hint = way if (shape[0], number) == (1, 2) else ""
            classes = f"{number} classes ({', '.join(self.classes)})"
            self._file.refuse(name, f"has {shape[0]} numbers for {classes}{hint}")
        if made_by in _MADE_PROBABLE and self._stage.outputs != "none":
            self._file.refuse(
                name,
                f"comes from {made_by} already; set outputs = 'none', not {self._stage.outputs!r}",
            )

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return class probabilities, see Classifier.

        Raises ModelOutputError if outputs `none` are not in [0, 1].
        """
        if not photos:
            return np.zeros((0, len(self.classes)), np.float32)
        batch = self._normalisation.tensor([self._square(photo) for photo in photos]).numpy()
        numbers = torch.from_numpy(np.stack(self._file.run(batch, self._output)))
        if self._stage.outputs == "none":
            probs = self._probable(numbers.numpy())
        else:
            probs = probabilities(numbers, self._stage.outputs, self._stage.calibration).numpy()
        return np.asarray(probs, np.float32)

    def _square(self, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._stage.fit == "crop":
            return centre_square(photo, self._stage.size)
        return pad_to_square(photo, self._stage.size, self._normalisation.fill)[0]

    def _probable(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        wrong = values[(values < -_SLACK) | (values > 1 + _SLACK)]
        if wrong.size:
            raise ModelOutputError(
                f"classifier `{self.head}` ({self._file.path.name}) gave {wrong[0]:.3g} as a probability; "
                "with outputs = 'logistic' or 'softmax' its numbers become probabilities"
            )
        return np.clip(values, 0, 1)


def _only_output(file: OnnxFile) -> Port:
    if len(file.outputs) != 1:
        names = ", ".join(f"`{port.name}`" for port in file.outputs)
        file.refuse(
            "outputs", f"are {names}; export the classifier with one, a number for each class"
        )
    return file.outputs[0]
