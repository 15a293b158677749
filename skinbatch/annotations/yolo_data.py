"""Read Ultralytics' data.yaml: the names of a data set's classes, and where its photos are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from skinbatch.annotations.spellings import Spellings
from skinbatch.annotations.tree import read_text
from skinbatch.errors import UsageError

SPLITS = ("train", "val", "test")
YAML = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class DataSet:
    """Hold the content of a data.yaml.

    Attributes:
        root: the folder that its paths are relative to.
        names: number -> class; {} if it has none.
        splits: split -> folders of photos and .txt lists of photos, only for splits in the file.
    """

    file: Path
    root: Path
    names: Mapping[int, str]
    splits: Mapping[str, tuple[Path, ...]]

    def places(self, split: str | None = None) -> tuple[Path, ...]:
        """Return the folders and lists of one split, or of all, each once.

        A missing `test` is ignored unless it is asked for: data sets are often handed on without
        it.

        Raises:
            UsageError: The file does not have the split, or a place that it names does not exist.
        """
        if split is not None and split not in self.splits:
            there = ", ".join(self.splits) or "none"
            raise UsageError(
                f"{self.file}: has no `{split}` (it has {there}); name a folder of photos instead"
            )

        places: dict[Path, None] = {}
        for name in [split] if split else self.splits:
            for place in self.splits[name]:
                if _is_there(place):
                    places[place] = None
                elif split or name != "test":
                    raise UsageError(
                        f"{self.file}: `{name}`: {place}: no such folder or list; correct `path` or `{name}`"
                    )
        if not places:
            raise UsageError(f"{self.file}: names no photos that exist; set `train` or `val`")
        return tuple(places)

    @property
    def is_there(self) -> bool:
        """Return whether any of the splits' photos or labels are on this machine."""
        return any(_is_there(place) for places in self.splits.values() for place in places)


def read_data_set(file: Path) -> DataSet:
    """Read a data.yaml.

    `path` is looked for beside the file, then as Ultralytics does: in the current folder and in
    `datasets` there or beside it.

    Raises:
        UsageError: A setting is wrong. The message names file and setting.
    """
    data = _loaded(file)
    data.setdefault("val", data.get("validation"))  # as Ultralytics does
    listed = {name: _listed(file, name, data[name]) for name in SPLITS if data.get(name)}
    root = _root(file, data.get("path"), [place for places in listed.values() for place in places])
    splits = {
        name: tuple(_resolved(root, place) for place in places) for name, places in listed.items()
    }
    return DataSet(file, root, class_names(file), splits)


def data_sets_in(folder: Path) -> list[Path]:
    """Return the .yaml files in a folder that name a data set's photos."""
    files = []
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix.lower() not in YAML or not file.is_file():
            continue
        try:
            data = _loaded(file)
        except UsageError:
            continue  # Another tool's file.
        if "names" in data and any(data.get(name) for name in SPLITS):
            files.append(file)
    return files


def class_names(file: Path) -> dict[int, str]:
    """Return number -> name of a data.yaml's classes; {} if it has none.

    Raises:
        UsageError: `names` is no list of names, or its length is not `nc`.
    """
    data = _loaded(file)
    names = data.get("names")
    if names is None:
        return {}
    try:
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        numbered = {int(number): str(name).strip() for number, name in pairs}
    except (TypeError, ValueError) as e:
        raise UsageError(f"{file}: `names` is not a list of class names: {e}") from None

    if isinstance(count := data.get("nc"), int) and count != len(numbered):
        raise UsageError(
            f"{file}: `nc` is {count}, and `names` has {len(numbered)} classes; correct one of them"
        )
    return numbered


def _loaded(file: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(read_text(file))
    except yaml.YAMLError as e:
        raise UsageError(f"{file}: not readable as YAML: {e}") from None
    return data if isinstance(data, dict) else {}


def _listed(file: Path, name: str, value: Any) -> Sequence[str]:
    places = [value] if isinstance(value, str) else value
    if not isinstance(places, list) or not all(
        isinstance(place, str) and place for place in places
    ):
        raise UsageError(
            f"{file}: `{name}` is not a folder, a list of photos (.txt), or several of them: {value!r}"
        )
    return places


def _root(file: Path, stated: Any, places: Sequence[str]) -> Path:
    """Return the folder that `path` names: the first of several candidates that has the photos."""
    beside = file.parent.absolute()
    if stated is None or stated == "":
        return beside
    if not isinstance(stated, str):
        raise UsageError(f"{file}: `path` is not a folder: {stated!r}")

    path = Path(stated.replace("\\", "/")).expanduser()
    here = Path.cwd()
    candidates = [
        Path(os.path.normpath(above / path))
        for above in (beside, here, here / "datasets", here.parent / "datasets")
    ]
    spellings = Spellings()
    folders = [
        folder
        for place in dict.fromkeys(candidates)
        if (folder := spellings.find(place)) and folder.is_dir()
    ]
    for folder in folders:
        if any(_is_there(_resolved(folder, place)) for place in places):
            return folder
    return (folders or candidates)[0]


def _resolved(root: Path, stated: str) -> Path:
    plain = stated.replace("\\", "/")
    place = Path(os.path.normpath(root / Path(plain).expanduser()))
    if not _is_there(place) and plain.startswith("../"):
        # Roboflow writes ../train/images for a folder beside data.yaml, and Ultralytics reads it
        # so.
        place = Path(os.path.normpath(root / plain.removeprefix("../")))
    return Spellings().find(place) or place


def _is_there(place: Path) -> bool:
    """Return whether a place has photos, or labels of photos there."""
    return place.exists() or labels_of(place).is_dir()


def labels_of(photos: Path) -> Path:
    """Return the place of labels of a folder of photos or of one photo.

    It is `labels` instead of the last `images` in the path.
    """
    parts = photos.parts
    for at in range(len(parts) - 1, 0, -1):
        if parts[at] == "images":
            return Path(*parts[:at], "labels", *parts[at + 1 :])
    return photos
