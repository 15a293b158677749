"""Define the photos of a recipe: the table [data], as plain, validated values."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from skinbatch.annotations.grouping import Grouping
from skinbatch.models.stages import Fraction, Name, Section
from skinbatch.tables.names import composed

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
    """Return an absolute path without following links, because cards print it as in the recipe."""
    folder = (info.context or {}).get(root)
    return Path(os.path.abspath(Path(folder) / path.expanduser())) if folder is not None else path


def _photos(value: Any) -> Any:
    return {"photos": value} if isinstance(value, str) else value


Located = Annotated[Path, AfterValidator(_located)]
LocatedPhotos = Annotated[Path, AfterValidator(_located_photos)]
AtLeastOne = Annotated[int, Field(ge=1)]
ProperShare = Annotated[float, Field(gt=0, lt=1)]
Window = tuple[Fraction, Fraction, Fraction, Fraction]
Windows = Annotated[tuple[Window, ...], Field(min_length=1)]


class PhotoView(Section):
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
    def _check_windows(self) -> PhotoView:
        for x1, y1, x2, y2 in self.crop or ():
            if not (x1 < x2 and y1 < y2):
                raise ValueError(
                    f"a window is x1, y1, x2, y2 in shares of the photo, and ({x1}, {y1}, {x2}, {y2}) is empty"
                )
        return self


class TruthSource(PhotoView):
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
    valid_share: ProperShare | None = None
    only: tuple[Name, ...] | None = None
    leave_out: tuple[Name, ...] | None = None
    repeat: AtLeastOne | None = None

    @model_validator(mode="after")
    def _check_names(self) -> TruthSource:
        if self.only is not None and self.leave_out is not None:
            raise ValueError("give either `only` or `leave_out`")
        return self


class Negatives(PhotoView):
    """Describe photos with nothing to find.

    Attributes:
        most: the largest number of photos to use, spread evenly over the sorted names.
        valid_share: the share that is held back for validation, as in a TruthSource.
    """

    photos: LocatedPhotos
    most: AtLeastOne | None = None
    valid_share: ProperShare | None = None


class DataSection(PhotoView):
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

    train: tuple[TruthSource, ...]
    valid: tuple[TruthSource, ...] = ()
    valid_share: ProperShare | None = None
    train_share: ProperShare | None = None
    negatives: tuple[Annotated[Negatives, BeforeValidator(_photos)], ...] = ()
    negative_share: ProperShare | None = None
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
