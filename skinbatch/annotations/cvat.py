"""Read CVAT for images 1.1: one .xml for many photos, with a folder `images` beside it."""

from __future__ import annotations

import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skinbatch.annotations.annotated_photos import (
    OCCLUDED,
    OUTLINES,
    ROTATED,
    AnnotatedPhoto,
    Truth,
)
from skinbatch.annotations.photo_files import PhotoFiles, unlisted
from skinbatch.annotations.severity import severity_of
from skinbatch.annotations.shapes import Point, around, around_ellipse, corners_of, turned
from skinbatch.annotations.tree import Tree
from skinbatch.errors import UsageError

LOOKED_FOR = "CVAT .xml files (CVAT for images 1.1)"
# Attribute of <image> with the percent-encoded name of a photo whose name CVAT would change.
OWN_NAME = "skinbatch_name"
_LOOKED_AT = 20
_NO_AREA = ("points", "polyline", "cuboid", "skeleton")


@dataclass(slots=True)
class _Image:
    """Hold the content of an <image> element."""

    name: str
    subset: str
    width: int
    height: int
    boxes: list[list[float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    tags: dict[str, None] = field(default_factory=dict)
    not_kept: Counter[str] = field(default_factory=Counter)

    @property
    def names(self) -> list[str]:
        """Return the paths at which the photo may lie. Projects have a folder for each subset."""
        return [f"{self.subset}/{self.name}", self.name] if self.subset else [self.name]


def fits(path: Path) -> bool:
    """Return whether a path is an .xml of CVAT, or a folder with one."""
    return bool(_files(path))


def read(path: Path, photos: Path | None = None) -> Truth:
    """Return the photos of every CVAT file of `path`.

    Polygons, ellipses, masks and rotated boxes become the boxes around them. Tags become classes of
    the photo. If a file has any boxes or tags, a photo without any counts as annotated with none.

    photos: the folder of the photos, if they are not beside the file or in `images` there.

    Raises:
        UsageError: Something cannot be read, such as points, which are no boxes. The message names
            the file and the photo.
    """
    files = [_CvatFile(file, photos) for file in _files(path)]
    roots = {file.photos.root for file in files}
    root = roots.pop() if len(roots) == 1 else path
    annotated = [photo for file in files for photo in file.annotated(root)]
    annotated += unlisted([file.photos for file in files], root)
    names = dict.fromkeys(name for file in files for name in file.labels)
    return Truth(root, "cvat", tuple(annotated), tuple(names))


class _CvatFile:
    """Read one .xml."""

    def __init__(self, file: Path, photos: Path | None) -> None:
        self.file = file
        self.labels: list[str] = []
        self.images: list[_Image] = []
        try:
            self._parse()
        except (OSError, ElementTree.ParseError, LookupError) as e:
            raise UsageError(
                f"{file}: not a readable CVAT annotation: {e}; export it again, or remove it"
            ) from None
        self.photos = PhotoFiles(file, photos, [image.names for image in self.images], ())

    def annotated(self, root: Path) -> Iterator[AnnotatedPhoto]:
        """Yield the photos of the file, named from `root`."""
        tagged = any(image.tags for image in self.images)
        boxed = any(image.boxes for image in self.images) or not tagged
        for image in self.images:
            path = self.photos.find(image.names)
            name = self.photos.key(image.name, path, root)
            yield AnnotatedPhoto(
                name,
                self.file,
                path,
                image.width,
                image.height,
                np.array(image.boxes, np.float32).reshape(-1, 4) if boxed else None,
                tuple(image.labels) if boxed else None,
                tuple(image.tags) if tagged else None,
                severity=severity_of(name),
                not_kept=dict(image.not_kept),
            )

    def _parse(self) -> None:
        for _, node in ElementTree.iterparse(self.file, ("end",)):
            if node.tag == "meta":
                self.labels = [
                    name
                    for label in node.iter("label")
                    if (name := (label.findtext("name") or "").strip())
                ]
            elif node.tag == "track":
                raise UsageError(
                    f"{self.file}: is CVAT for video, whose boxes are tracks; export it as `CVAT for images 1.1`"
                )
            elif node.tag == "image":
                self.images.append(self._image(node))
                node.clear()

    def _image(self, node: ElementTree.Element) -> _Image:
        own_name = urllib.parse.unquote(node.get(OWN_NAME) or "", errors="surrogatepass")
        name = own_name or (node.get("name") or "").strip().replace("\\", "/")
        if not name:
            raise UsageError(f"{self.file}: image {node.get('id')} has no `name`")
        where = f"{self.file}: {name}"
        width, height = (_number(node, side, where) for side in ("width", "height"))
        image = _Image(name, (node.get("subset") or "").strip(), int(width), int(height))

        for shape in node:
            label = (shape.get("label") or "").strip()
            if shape.tag == "tag":
                image.tags[label] = None
            elif shape.tag in _SHAPES:
                image.boxes.append(_SHAPES[shape.tag](shape, f"{where}: <{shape.tag}>"))
                image.labels.append(label)
                image.not_kept.update(_not_kept(shape))
            elif shape.tag in _NO_AREA:
                raise UsageError(
                    f"{where}: has <{shape.tag}>, which is not a box and has no area; draw a box there, or remove it"
                )
        return image


def _not_kept(shape: ElementTree.Element) -> Iterator[str]:
    if shape.tag != "box":
        yield OUTLINES
    elif float(shape.get("rotation") or 0):
        yield ROTATED
    if shape.get("occluded") == "1":
        yield OCCLUDED


def _box(node: ElementTree.Element, where: str) -> list[float]:
    x1, y1, x2, y2 = (_number(node, name, where) for name in ("xtl", "ytl", "xbr", "ybr"))
    degrees = _number(node, "rotation", where, default=0.0)
    if not degrees:
        return [x1, y1, x2, y2]
    return around(turned(corners_of(x1, y1, x2, y2), ((x1 + x2) / 2, (y1 + y2) / 2), degrees))


def _polygon(node: ElementTree.Element, where: str) -> list[float]:
    points: list[Point] = []
    for pair in (node.get("points") or "").split(";"):
        try:
            x, y = map(float, pair.split(","))
        except ValueError:
            raise UsageError(f"{where}: `points` has {pair[:40]!r}, not x,y in pixels") from None
        points.append((x, y))
    return around(points)


def _ellipse(node: ElementTree.Element, where: str) -> list[float]:
    x, y, width, height = (_number(node, name, where) for name in ("cx", "cy", "rx", "ry"))
    return around_ellipse((x, y), (width, height), _number(node, "rotation", where, default=0.0))


def _mask(node: ElementTree.Element, where: str) -> list[float]:
    x, y, width, height = (
        _number(node, name, where) for name in ("left", "top", "width", "height")
    )
    return [x, y, x + width, y + height]


_SHAPES: Mapping[str, Callable[[ElementTree.Element, str], list[float]]] = {
    "box": _box,
    "polygon": _polygon,
    "ellipse": _ellipse,
    "mask": _mask,
}


def _number(
    node: ElementTree.Element, name: str, where: str, default: float | None = None
) -> float:
    text = node.get(name)
    if text is None and default is not None:
        return default
    try:
        return float(text or "")
    except ValueError:
        raise UsageError(f"{where}: `{name}` is {text!r}, not a number") from None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".xml" and _is_cvat(path) else []
    tree = Tree(path)
    files = [tree.path(key) for key in tree.ending(".xml")]
    if not any(_is_cvat(file) for file in files[:_LOOKED_AT]):
        return []
    return [file for file in files if _is_cvat(file)]


def _is_cvat(file: Path) -> bool:
    try:
        return next(iter(ElementTree.iterparse(file, ("start",))))[1].tag == "annotations"
    except (ElementTree.ParseError, OSError, StopIteration, ValueError, LookupError):
        return False  # VOC's reader reports what is wrong.
