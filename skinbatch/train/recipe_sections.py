"""Define the tables of a recipe file: plain, validated values. No framework is imported here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from skinbatch.annotations.grouping import Grouping
from skinbatch.models.stages import Fraction, Name, Positive, Section
from skinbatch.tables.names import composed

StageName = Literal["segmenter", "detector", "classifier"]
Format = Literal[
    "voc",
    "coco",
    "label-studio",
    "cvat",
    "labelme",
    "yolo",
    "lines",
    "masks",
    "parts",
    "folders",
    "csv",
]


def _located(path: Path, info: ValidationInfo) -> Path:
    """Resolve a path relative to the recipe's folder."""
    return _below("folder", path, info)


def _located_photos(path: Path, info: ValidationInfo) -> Path:
    """Resolve a path relative to the photos' folder: the recipe's own, or the one of --data."""
    return _below("photos", path, info)


def _below(root: str, path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get(root)
    return (Path(folder) / path.expanduser()).resolve() if folder is not None else path


def _photos(value: Any) -> Any:
    return {"photos": value} if isinstance(value, str) else value


def _factors(value: Any) -> Any:
    """Turn one number such as 1.25 into the range from 1 / 1.25 to 1.25."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return (min(value, 1 / value), max(value, 1 / value))
    return tuple(value) if isinstance(value, list) else value


Located = Annotated[Path, AfterValidator(_located)]
LocatedPhotos = Annotated[Path, AfterValidator(_located_photos)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Part = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Factors = Annotated[tuple[Positive, Positive], BeforeValidator(_factors)]
Window = tuple[Fraction, Fraction, Fraction, Fraction]
Windows = Annotated[tuple[Window, ...], Field(min_length=1)]


class View(Section):
    """Describe the part of a photo that is used.

    Attributes:
        crop: windows x1 y1 x2 y2 in shares of the photo, for example around a watermark. Training
            takes one of them at random, validation the first.
        face: cut the photo to its face, and mask it if the model's input is `masked_crop`, as the
            scorer does, with the segmenter of `base`. A photo without a face stays whole. None: as
            in [data].
    """

    crop: Windows | None = None
    face: bool | None = None

    @model_validator(mode="after")
    def _check_windows(self) -> View:
        for x1, y1, x2, y2 in self.crop or ():
            if not (x1 < x2 and y1 < y2):
                raise ValueError(
                    f"a window is x1, y1, x2, y2 in shares of the photo, and ({x1}, {y1}, {x2}, {y2}) is empty"
                )
        return self


class Source(View):
    """Describe a set of annotated photos.

    Attributes:
        truth: the annotations. Of a data.yaml with splits, `train` uses its `train`, and `valid`
            its `val`.
        photos: the folder of the photos, if they are not beside the annotations.
        format: None: recognised from the files.
        valid_share: the share of this source alone that is held back for validation, by groups;
            [data] then needs none.
        only, leave_out: the photos that are used or not used, by file name without its ending.
            Leave out a photo if a validation photo is another copy of it.
        repeat: how often a training photo is shown in an epoch (detector).
    """

    truth: LocatedPhotos
    photos: LocatedPhotos | None = None
    format: Format | None = None
    valid_share: Part | None = None
    only: tuple[Name, ...] | None = None
    leave_out: tuple[Name, ...] | None = None
    repeat: AtLeastOne | None = None

    @model_validator(mode="after")
    def _check_names(self) -> Source:
        if self.only is not None and self.leave_out is not None:
            raise ValueError("give either `only` or `leave_out`")
        return self


class Negatives(View):
    """Describe photos with nothing to find.

    Attributes:
        most: the largest number of photos to use, spread evenly over the sorted names.
        valid_share: the share that is held back for validation, as in a Source.
    """

    photos: LocatedPhotos
    most: AtLeastOne | None = None
    valid_share: Part | None = None


class DataSection(View):
    """Hold [data].

    Attributes:
        valid: photos to evaluate on.
        valid_share: instead of `valid`, a share of `train`. Photos of one group are all trained on,
            or all evaluated on.
        train_share: the share of the remaining training photos and negatives that is used, for a
            curve over the amount of data. The seed chooses the photos; a smaller share is a part of
            a larger one, and the validation photos are always the same.
        negative_share: the share of a detector's training inputs that show `negatives`; None: 0.08.
        map: name of a class in the truth -> class of the model. `"*"` stands for all other names;
            `""` is none of the model's classes.
        group: a regular expression over the photo's name whose first group (or first named one) is
            the patient, a column of a CSV truth, or `look` for photos that look alike. Without it,
            photos that look alike are not split, and intervals are over photos.
        stretched: the shape of the photos before they were stretched to a square, such as `4:3`.
        apart: classes that the score and the means leave out, because their photos can be
            recognised by something other than the skin.
        terms: terms of the data, for the card.
    """

    train: tuple[Source, ...]
    valid: tuple[Source, ...] = ()
    valid_share: Part | None = None
    train_share: Part | None = None
    negatives: tuple[Annotated[Negatives, BeforeValidator(_photos)], ...] = ()
    negative_share: Part | None = None
    map: dict[str, str] = Field(default_factory=dict)
    group: Name | None = None
    stretched: Annotated[str, Field(pattern=r"^\d+(\.\d+)?:\d+(\.\d+)?$")] | None = None
    apart: tuple[str, ...] = ()
    terms: str = ""

    @model_validator(mode="after")
    def _check(self) -> DataSection:
        if not self.train:
            raise ValueError(
                '`train` is a list of truths, such as [{ truth = "acne04/train" }], and it is empty'
            )
        of_sources = any(source.valid_share is not None for source in self.train)
        of_negatives = any(negatives.valid_share is not None for negatives in self.negatives)
        if any(source.valid_share is not None for source in self.valid):
            raise ValueError(
                "`valid_share` of a source goes with `train`: all photos of `valid` are validated on"
            )
        if self.valid_share is not None and (self.valid or of_sources or of_negatives):
            raise ValueError(
                "`valid_share` is of all sources; leave out `valid`, and `valid_share` of single sources"
            )
        if not (self.valid or of_sources) and self.valid_share is None:
            raise ValueError("give either `valid`, a list of truths, or `valid_share`, such as 0.2")
        if self.group is not None:
            try:
                Grouping.parse(self.group)
            except re.error as e:
                raise ValueError(f"`group` is not a regular expression: {e}") from None
        if self.stretched is not None and 0 in map(float, self.stretched.split(":")):
            raise ValueError("`stretched` is width:height, such as 4:3")
        return self

    def mapping(self, classes: Sequence[str]) -> dict[str, str]:
        """Return `map` completed by the model's own names, each of which maps to itself by default.

        Keys are in Unicode's composed form, as a truth's names are.
        """
        own = {composed(name): name for name in classes}
        return own | {composed(name): meant for name, meant in self.map.items()}

    @property
    def grouping(self) -> Grouping | None:
        """Return how groups are known; None without `group`."""
        return None if self.group is None else Grouping.parse(self.group)

    @property
    def aspect(self) -> float | None:
        """Return width / height of the photos before they were stretched to a square."""
        if self.stretched is None:
            return None
        width, height = map(float, self.stretched.split(":"))
        return width / height


class AugmentSection(Section):
    """Hold [augment]: random changes to training photos. 0, 1.0 for factors, or no value is off.

    Attributes:
        flip, flip_vertical: share of photos.
        rotate, shear: degrees, both ways.
        scale: factors from and to, log-uniform; one number x means 1 / x to x. At 1.0 the whole
            photo fills the network's input.
        stretch: width against height, as scale.
        translate: share of the input's side, both ways.
        crop: smallest share of the photo's sides that is left. For a detector: the side of a square
            at full scale, as a share of the photo's longer side.
        colour: 0-1, for exposure, contrast, white balance and saturation together.
        brightness: share, both ways.
        blur, jpeg, erase: share of photos that are blurred, strongly compressed as JPEG, or lose a
            rectangle.
        noise: standard deviation, pixel values.
        blemish: largest number of red and brown spots that are drawn on the skin.
        scene: share of faces that are put before another background (segmenter).
        closeup: share of faces of which only a small window of skin, nose or ear is shown
            (segmenter).
        mosaic: share of inputs that combine four photos.
        on_lesion: share of crops that are placed on a lesion (detector).
        off_lesion: share of the other crops that are placed where there is none.
        resolution, sharpen: share of photos that are shrunk and enlarged again, or sharpened.
    """

    flip: Fraction = 0.0
    flip_vertical: Fraction = 0.0
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    shear: Annotated[float, Field(ge=0, le=45)] = 0.0
    scale: Factors = (1.0, 1.0)
    stretch: Factors = (1.0, 1.0)
    translate: Fraction = 0.0
    crop: Fraction = 0.0
    colour: Fraction = 0.0
    brightness: Fraction = 0.0
    blur: Fraction = 0.0
    jpeg: Fraction = 0.0
    erase: Fraction = 0.0
    noise: NotNegative = 0.0
    blemish: Count = 0
    scene: Fraction = 0.0
    closeup: Fraction = 0.0
    mosaic: Fraction = 0.0
    on_lesion: Fraction = 0.0
    off_lesion: Fraction = 0.0
    resolution: Fraction = 0.0
    sharpen: Fraction = 0.0

    @model_validator(mode="after")
    def _check_factors(self) -> AugmentSection:
        for name in ("scale", "stretch"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(
                    f"`{name}` goes from the smaller factor to the larger, not from {low} to {high}"
                )
        return self


class CloneSection(Section):
    """Hold [clone]: lesions of the annotated photos are cloned onto other skin (detector).

    The segmenter of `base` finds the skin. Without [clone] a detector may learn to recognise the
    source of a photo, if one source has all the lesions and another all the clear faces.

    An evaluation clones lesions of the validation photos onto clear faces that are held back. Its
    score is the mean of AP50 and of the share of these lesions that is counted, less the share of
    plain patches that is counted.

    Attributes:
        on_clear, on_annotated: share of the crops of clear or annotated photos that get lesions.
        plain: share of all crops that get patches of plain skin, blended in like lesions, without a
            box.
        most: largest number of patches of either kind in a crop.
        size: sides of lesions, pixels of the network's input, from and to.
        most_plain_counted, most_boxes_a_face: largest share of the plain patches, and largest number
            of boxes on a clear face, that may be counted on the faces held back. The threshold with
            the best counts is raised until both hold.
    """

    on_clear: Fraction = 0.6
    on_annotated: Fraction = 0.3
    plain: Fraction = 0.5
    most: AtLeastOne = 6
    size: tuple[Positive, Positive] = (10.0, 56.0)
    most_plain_counted: Fraction = 1.0
    most_boxes_a_face: Positive | None = None

    @model_validator(mode="after")
    def _check_size(self) -> CloneSection:
        if self.size[0] > self.size[1]:
            raise ValueError(
                f"`size` goes from the smaller to the larger, not from {self.size[0]:g} to {self.size[1]:g}"
            )
        return self


class ScheduleSection(Section):
    """Hold [schedule], with one of epochs, iterations (steps of the optimiser) and minutes.

    Attributes:
        minutes: time on the clock, over all resumptions.
        batch: photos a step, over all workers.
        lr: the highest learning rate. It rises over `warmup` steps and, with decay `cosine`, then
            falls to 0.01 of it.
        hold: share of the schedule before the rate begins to fall. Until then no step depends on
            the length of the schedule.
        clip: largest norm of the gradients; 0 is off.
        ema: decay of the averaged weights, which are then the ones evaluated and kept; 0 is off.
        evaluate_every: epochs.
        patience: evaluations without improvement before training stops; 0 is never.
        class_weights: weights of the loss: one over the frequency (`balanced`) or its root
            (`sqrt`).
        sampling: the photos that a step shows. `all`: each once an epoch. `balanced`: at random.
            Each source of a segmenter is shown as often as the others; so is each class of a
            classifier, and photos of no class as often as all classes together.
    """

    epochs: AtLeastOne | None = None
    iterations: AtLeastOne | None = None
    minutes: Positive | None = None
    batch: AtLeastOne = 8
    lr: Positive = 1e-3
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    weight_decay: NotNegative = 0.0
    momentum: Decay = 0.9
    warmup: Count = 0
    decay: Literal["cosine", "constant"] = "cosine"
    hold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: NotNegative = 0.0
    ema: Decay = 0.0
    evaluate_every: AtLeastOne = 1
    patience: Count = 0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Literal["none", "balanced", "sqrt"] = "none"
    sampling: Literal["all", "balanced"] = "all"

    @model_validator(mode="after")
    def _check_length(self) -> ScheduleSection:
        if sum(length is not None for length in (self.epochs, self.iterations, self.minutes)) != 1:
            raise ValueError("give one of `epochs`, `iterations` and `minutes`")
        return self


class CalibrationSection(Section):
    """Hold [calibration]: what a classifier's probabilities and threshold have to achieve.

    After training, the probabilities are fitted to the validation photos. Below the threshold no
    class is named; the threshold is the lowest that reaches both shares on these photos.

    Attributes:
        none_kept: share of the photos in each folder of `negatives` for which no class is named.
        named_right: share of correct classes among the photos for which a class is named.
    """

    none_kept: Fraction = 0.98
    named_right: Fraction = 0.7


class TransferSection(Section):
    """Hold a [[transfer]]: a training before the main one, whose weights the next one starts from.

    Paper 000 trains on other body parts first, then on faces. The model, [augment] and [run] are
    the recipe's.

    Attributes:
        classes: None: the model's. With other classes the last layer starts anew.
        data, schedule: its own.
    """

    name: Name
    classes: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    data: DataSection
    schedule: ScheduleSection


class RunSection(Section):
    """Hold [run]: where the training runs. No setting here is meant to change a number.

    Attributes:
        precision: `amp` is fp16 where that is safe, on a GPU only; `auto` is `amp` on a GPU.
        threads: threads of the model on a CPU; None: all.
        workers: workers of Ray Train; 1: without it.
        loader_threads: processes that read and change photos ahead of the model; None: by the
            cores.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "amp"] = "auto"
    threads: AtLeastOne | None = None
    workers: AtLeastOne = 1
    loader_threads: Count | None = None
