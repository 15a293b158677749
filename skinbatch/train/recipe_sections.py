"""The tables of a recipe file: plain values, validated. No framework is imported here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from skinbatch.annotations.split import how_grouped
from skinbatch.models.stages import Fraction, Name, Positive, Section
from skinbatch.tables.names import composed

StageName = Literal["segmenter", "detector", "classifier"]
Format = Literal["voc", "coco", "label-studio", "cvat", "labelme", "yolo", "lines", "masks", "parts", "folders", "csv"]


def _located(path: Path, info: ValidationInfo) -> Path:
    """Resolve a path relative to the recipe's folder."""
    return _below("folder", path, info)


def _located_photos(path: Path, info: ValidationInfo) -> Path:
    """Resolve a path relative to the folder of the photos, which is the recipe's own unless --data names another."""
    return _below("photos", path, info)


def _below(root: str, path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get(root)
    return (Path(folder) / path.expanduser()).resolve() if folder is not None else path


def _photos(value: Any) -> Any:
    return {"photos": value} if isinstance(value, str) else value


def _factors(value: Any) -> Any:
    """1.25 is from 1 / 1.25 to 1.25."""
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
    """What of a photo is looked at. crop: windows x1 y1 x2 y2 in shares of the photo, as around a watermark: training
    takes one of them at random, validation the first. face: the photo is cut to its face, and masked where the model's
    input is `masked_crop`, as the scorer does it, by the segmenter of `base`; a photo without a face stays whole. None:
    what [data] says."""

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
    """Annotated photos. format: told by what lies there unless it is said. photos: the folder of the photos, where they are not
    beside the annotations. only, leave_out: the photos that are used, those that are not, by file name without its ending; leave
    out one that a validation photo is another copy of. valid_share: the share of this source alone that is held back for
    validation, by groups; with it [data] needs none. Of a data.yaml with splits, `train` takes its `train`, and `valid` its
    `val`. repeat: how often a training photo is shown in an epoch (detector)."""

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
    """Photos with nothing to find. most: so many of them at most, spread evenly over the sorted names. valid_share: the share of
    them that is held back for validation, as of a Source."""

    photos: LocatedPhotos
    most: AtLeastOne | None = None
    valid_share: Part | None = None


class DataSection(View):
    """[data] valid: photos to evaluate on; or valid_share of `train`, by groups, none of which is in both. train_share: of
    the training photos and negatives that are left, so many are used, for a curve over the amount of data: chosen by the
    seed, those of a smaller share among those of a larger one, the validation photos always the same.

    map: the truth's name of a class -> the model's; `"*"` takes all others; `""` is none of the model's classes. group: a
    regular expression over the photo's name whose first group is the patient, or a column of a CSV truth; without it
    photos that look the same are a group. stretched: `4:3`, what the photos were before they were stretched to a square.
    apart: classes that the score and the means leave out, because their photos can be told by something else. terms: of
    the data, for the card. negative_share: of a detector's training inputs, those of `negatives`; None: 0.08.
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
            raise ValueError('`train` is a list of truths, such as [{ truth = "acne04/train" }], and it is empty')
        of_sources = any(source.valid_share is not None for source in self.train)
        of_negatives = any(negatives.valid_share is not None for negatives in self.negatives)
        if any(source.valid_share is not None for source in self.valid):
            raise ValueError("`valid_share` of a source goes with `train`: all photos of `valid` are validated on")
        if self.valid_share is not None and (self.valid or of_sources or of_negatives):
            raise ValueError("`valid_share` is of all sources; leave out `valid`, and `valid_share` of single sources")
        if not (self.valid or of_sources) and self.valid_share is None:
            raise ValueError("give either `valid`, a list of truths, or `valid_share`, such as 0.2")
        if self.group is not None:
            try:
                re.compile(self.group)
            except re.error as e:
                raise ValueError(f"`group` is no regular expression: {e}") from None
        if self.stretched is not None and 0 in map(float, self.stretched.split(":")):
            raise ValueError("`stretched` is width:height, such as 4:3")
        return self

    def mapping(self, classes: Sequence[str]) -> dict[str, str]:
        """Return `map`, in which the model's own names are themselves unless it says otherwise.

        Keys are in Unicode's composed form, as a truth's names are.
        """
        own = {composed(name): name for name in classes}
        return own | {composed(name): meant for name, meant in self.map.items()}

    @property
    def group_pattern(self) -> re.Pattern[str] | None:
        """None where `group` is a column's name, or not set."""
        return how_grouped(self.group)[0]

    @property
    def group_column(self) -> str | None:
        """None where `group` is a regular expression with a group in it, or not set."""
        return how_grouped(self.group)[1]

    @property
    def aspect(self) -> float | None:
        """Width / height of the photos before they were stretched to a square."""
        if self.stretched is None:
            return None
        width, height = map(float, self.stretched.split(":"))
        return width / height


class AugmentSection(Section):
    """[augment] Random changes to training photos; 0, 1.0 for factors, or left out is off.

    flip, flip_vertical: share of photos. rotate, shear: degrees, both ways. scale: factors, log-uniform, from and to; one
    number is 1 / it to it; 1.0 is the whole photo in the network's input. stretch: width against height, as scale.
    translate: share of the input's side, both ways. crop: smallest share of the photo's sides that is left of it; of a
    detector the side of a square at full scale, as a share of the photo's longer side.
    colour: 0-1, of exposure, contrast, white balance and saturation together. brightness: share, both ways. blur, jpeg,
    erase: share of photos that are blurred, kept as a strongly compressed JPEG, have a rectangle missing. noise: standard
    deviation, pixel values. blemish: so many red and brown spots on the skin at most. scene: share of faces that are put
    before another background (segmenter). closeup: share of faces of which a small window of skin, nose or ear is
    shown (segmenter). mosaic: share of inputs that are put together of four photos. on_lesion: share of crops
    that are placed on a lesion (detector); off_lesion: share of the other crops that are placed where none is. resolution,
    sharpen: share of photos that are shrunk and enlarged again, sharpened.
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
                raise ValueError(f"`{name}` goes from the smaller factor to the larger, not from {low} to {high}")
        return self


class CloneSection(Section):
    """[clone] Lesions of the annotated photos cloned onto other skin, which the segmenter of `base` finds (detector). Without it
    a detector may learn which set a photo is of, where one set has all the lesions and another all the clear faces.

    on_clear, on_annotated: share of the crops of clear photos, and of annotated ones, that get lesions. plain: share of all
    crops that get patches of plain skin, blended in as lesions are, without a box. most: patches of either kind in a crop.
    size: of lesions, pixels of the network's input, from and to.

    An evaluation clones lesions of the validation photos onto clear faces that are held back. Its score is the mean of AP50 and
    of the share of these lesions that is counted, less that of the plain patches.
    """

    on_clear: Fraction = 0.6
    on_annotated: Fraction = 0.3
    plain: Fraction = 0.5
    most: AtLeastOne = 6
    size: tuple[Positive, Positive] = (10.0, 56.0)

    @model_validator(mode="after")
    def _check_size(self) -> CloneSection:
        if self.size[0] > self.size[1]:
            raise ValueError(
                f"`size` goes from the smaller to the larger, not from {self.size[0]:g} to {self.size[1]:g}"
            )
        return self


class ScheduleSection(Section):
    """[schedule] One of epochs, iterations (steps of the optimiser) and minutes (on the clock, over all resumptions).

    batch: photos a step, over all workers. lr: the highest; it rises over `warmup` steps and, with decay `cosine`, then falls to
    0.01 of it. hold: share of the schedule before it begins to fall, so that until then no step depends on the length. clip: of
    the gradients' norm, 0 is off. ema: decay of the averaged weights, which are then the ones evaluated and kept; 0 is off.
    evaluate_every: epochs. patience: evaluations without improvement before it stops; 0 is never. class_weights: of the loss,
    by one over the frequency (`balanced`) or its root (`sqrt`).
    sampling: which photos a step shows. `all`: each once an epoch. `balanced`: at random, each source of a segmenter as often as
    the others; each class of a classifier as often as the others, and photos of none as often as all classes together.
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
    """[calibration] Once a classifier is trained, its probabilities are fitted to the validation photos, and the threshold under
    which nothing is named is the lowest that holds both shares there.

    none_kept: of the photos of each folder of `negatives`, so many have nothing named. named_right: of the photos of which
    something is named, so many are named right.
    """

    none_kept: Fraction = 0.98
    named_right: Fraction = 0.7


class TransferSection(Section):
    """[[transfer]] A training before the main one, whose weights the next one starts from (paper 000: other body parts,
    then faces). classes: None: the model's; with others the last layer starts anew. data, schedule: its own;
    the model, [augment] and [run] are the recipe's."""

    name: Name
    classes: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    data: DataSection
    schedule: ScheduleSection


class RunSection(Section):
    """[run] Where it runs; changes no number on purpose. precision: `amp` is fp16 where that is safe, on a GPU only;
    `auto` is `amp` on a GPU. threads: of the model on a CPU, None: all. workers: of Ray Train, 1: without it.
    loader_threads: processes that read and change photos ahead of the model, None: by the cores."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "amp"] = "auto"
    threads: AtLeastOne | None = None
    workers: AtLeastOne = 1
    loader_threads: Count | None = None
