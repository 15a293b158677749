"""Write Pascal VOC: one .xml for each photo, in the photos' folders."""

from __future__ import annotations

import posixpath
import urllib.parse
from xml.sax.saxutils import escape

from skinbatch.annotations.voc import OWN_DATABASE, PERCENT
from skinbatch.export.boxed import ExportedPhoto, decimals
from skinbatch.export.files import Files


class VocWriter:
    """Write VOC.

    Scores are in <score>, which VOC does not define and its readers ignore. <source><image> is the
    photo's name.
    """

    def __init__(self, files: Files, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names
        self._files = files

    def add(self, photo: ExportedPhoto) -> None:
        self._files.put(self._files.key_for(photo.name, ".xml"), "\n".join(_lines(photo)).encode())

    def close(self) -> None:
        self._files.close()


def _lines(photo: ExportedPhoto) -> list[str]:
    folder, name = posixpath.split(photo.name)
    lines = [
        "<annotation>",
        f"  <folder>{_text(folder)}</folder>",
        f"  <filename>{_text(name)}</filename>",
        f"  <source><database>{OWN_DATABASE}</database>{_image(photo.name)}</source>",
    ]
    if photo.width is not None and photo.height is not None:
        size = f"<width>{photo.width}</width><height>{photo.height}</height><depth>3</depth>"
        lines.append(f"  <size>{size}</size>")
    lines.append("  <segmented>0</segmented>")
    corners = decimals(photo.boxes.ravel())
    scores = None if photo.scores is None else decimals(photo.scores)
    for n, label in enumerate(photo.labels):
        x1, y1, x2, y2 = corners[4 * n : 4 * n + 4]
        score = "" if scores is None else f"<score>{scores[n]}</score>"
        lines += [
            "  <object>",
            f"    <name>{_text(label)}</name><pose>Unspecified</pose><truncated>0</truncated>"
            f"<difficult>{int(n in photo.difficult)}</difficult>{score}",
            f"    <bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>",
            "  </object>",
        ]
    return [*lines, "</annotation>", ""]


def _image(name: str) -> str:
    if _holds(name):
        return f"<image>{escape(name)}</image>"
    return f'<image encoding="{PERCENT}">{urllib.parse.quote(name, errors="surrogatepass")}</image>'


def _text(text: str) -> str:
    """Return text for people and other tools: characters that XML cannot hold become `_`."""
    return escape("".join(c if _holds(c) else "_" for c in text))


def _holds(text: str) -> bool:
    """Return whether XML keeps a text unchanged, which is sure only for printable characters."""
    return text.isprintable()
