"""Read Pascal VOC: one .xml for each photo, beside it or in `Annotations` beside `JPEGImages`."""

from __future__ import annotations

import posixpath
import urllib.parse
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from skinbatch.annotations.annotated_photos import MARKS, OUTLINES, AnnotatedPhoto, Truth
from skinbatch.annotations.displayed import displayed_size
from skinbatch.annotations.severity import severity_of
from skinbatch.annotations.tree import Tree, photo_folder, stem
from skinbatch.archive.formats import has_image_name
from skinbatch.errors import UsageError

LOOKED_FOR = "Pascal VOC .xml files"
# <source><database> in files from `skinbatch export`: their <source><image> is the photo's name.
OWN_DATABASE = "skinbatch"
# Attribute `encoding` of a name that XML cannot hold unchanged.
PERCENT = "percent"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# Marks of an object -> values without meaning, in lower case.
_DEFAULTS = {"pose": ("", "unspecified"), "truncated": ("", "0"), "occluded": ("", "0")}
# Elements of an object, beside its box, in which tools write its outline.
_OUTLINES = ("polygon", "segmentation", "mask")
_FOLDERS = (("Annotations", "annotations", "labels"), ("JPEGImages", "images", "Images"))
_SWAPS = (("annotations", _FOLDERS[1]), ("labels", _FOLDERS[1]))
_LOOKED_AT = 20


def fits(path: Path) -> bool:
    """Return whether there is an .xml of annotations, or a broken one."""
    if path.is_file():
        return path.suffix.lower() == ".xml" and _is_annotation(path)
    tree = Tree(photo_folder(path, *_FOLDERS)[1])
    return any(_is_annotation(tree.path(key)) for key in tree.ending(".xml")[:_LOOKED_AT])


def read(path: Path, photos: Path | None = None) -> Truth:
    """Read every .xml below `path`, and every photo without one.

    photos: the folder of the photos, if they are not beside the annotations nor in VOC's folders.
    Raises UsageError naming file, object and tag.
    """
    folder = path.parent if path.is_file() else path
    photo_root, annotation_root = (
        (folder, folder) if path.is_file() else photo_folder(folder, *_FOLDERS)
    )
    photo_root = photos or photo_root
    tree = Tree(photo_root, loose=photos is not None) if photo_root.is_dir() else None
    annotations = Tree(annotation_root)
    keys = [path.name] if path.is_file() else annotations.ending(".xml")
    read_photos, unread, taken = [], [], set()
    for key in keys:
        file = annotations.path(key)
        root = _parse(file)
        if root.tag != "annotation":
            unread.append(file)
            continue
        photo = _photo_of(key, root, tree, photos is not None)
        taken.add(photo)
        read_photos.append(_photo(file, root, key, photo, photo_root))
    for key in tree.photos if tree and not path.is_file() else ():
        if key not in taken:
            file = photo_root / key
            read_photos.append(AnnotatedPhoto(key, file, file, severity=severity_of(key)))
    names = {label for photo in read_photos for label in photo.labels or () if label}
    return Truth(photo_root, "voc", tuple(read_photos), tuple(sorted(names)), tuple(unread))


def _photo(
    file: Path, root: ElementTree.Element, key: str, photo: str | None, photo_root: Path
) -> AnnotatedPhoto:
    boxes, labels, difficult, marks, outlines = [], [], set(), 0, 0
    for number, node in enumerate(root.findall("object"), 1):
        where = f"{file}: object {number}"
        box = node.find("bndbox")
        if box is None:
            raise UsageError(f"{where} has no <bndbox>; draw its box, or remove the object")
        boxes.append([_number(box, tag, where) for tag in _CORNERS])
        labels.append((node.findtext("name") or "").strip())
        if (node.findtext("difficult") or "").strip() == "1":
            difficult.add(number - 1)
        outlines += any(node.find(tag) is not None for tag in _OUTLINES)
        marks += sum(
            (node.findtext(tag) or "").strip().lower() not in defaults
            for tag, defaults in _DEFAULTS.items()
        )
    path = None if photo is None else photo_root / photo
    width, height = _size(root, file, path)
    name = _own_name(root) or photo or _named(root, key)
    return AnnotatedPhoto(
        name,
        file,
        path,
        width,
        height,
        np.array(boxes, np.float32).reshape(-1, 4),
        tuple(labels),
        severity=severity_of(name),
        difficult=frozenset(difficult),
        not_kept={what: count for what, count in ((MARKS, marks), (OUTLINES, outlines)) if count},
    )


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as e:
        raise UsageError(
            f"{file}: not a readable Pascal VOC annotation: {e}; repair it, or remove it"
        ) from None


def _number(node: ElementTree.Element, tag: str, where: str) -> float:
    text = node.findtext(tag)
    if text is None:
        raise UsageError(
            f"{where}: <{node.tag}> without <{tag}>; it needs {', '.join(f'<{t}>' for t in _CORNERS)}"
        )
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"{where}: <{tag}> is {text.strip()[:40]!r}, not a number of pixels"
        ) from None


def _size(
    root: ElementTree.Element, file: Path, photo: Path | None
) -> tuple[int | None, int | None]:
    """Return the size in the file.

    Some tools omit the size or write 0; then the photo's own size is returned.
    """
    size = []
    for tag in ("width", "height"):
        text = root.findtext(f"size/{tag}")
        try:
            size.append(int(float(text)) if text and text.strip() else 0)
        except (ValueError, OverflowError):
            raise UsageError(
                f"{file}: <size>: <{tag}> is {text!r}, not a number of pixels"
            ) from None
    if min(size) > 0:
        return size[0], size[1]
    return displayed_size(photo) if photo is not None else (None, None)


def _photo_of(key: str, root: ElementTree.Element, photos: Tree | None, apart: bool) -> str | None:
    """Return the photo by <filename> if it exists, otherwise by the annotation's own name.

    Photos get renamed. apart: the photos are not beside the annotations.
    """
    if photos is None:
        return None
    named = _named(root, key)
    match = photos.photo(named) or photos.beside(key, _SWAPS)
    return match or ((photos.find(named) or photos.find(stem(key))) if apart else None)


def _named(root: ElementTree.Element, key: str) -> str:
    """Return the key that <filename> gives, or else the annotation's own."""
    filename = posixpath.basename((root.findtext("filename") or "").strip().replace("\\", "/"))
    return (
        posixpath.join(posixpath.dirname(key), filename) if has_image_name(filename) else stem(key)
    )


def _own_name(root: ElementTree.Element) -> str | None:
    if (
        root.findtext("source/database") != OWN_DATABASE
        or (node := root.find("source/image")) is None
    ):
        return None
    return (
        urllib.parse.unquote(node.text or "", errors="surrogatepass")
        if node.get("encoding") == PERCENT
        else node.text
    )


def _is_annotation(file: Path) -> bool:
    try:
        return next(iter(ElementTree.iterparse(file, ("start",))))[1].tag == "annotation"
    except (ElementTree.ParseError, OSError, StopIteration, ValueError, LookupError):
        return True  # Reading the file reports what is wrong.
