"""Write CVAT for images 1.1: one `annotations.xml`, in a stream."""

from __future__ import annotations

import shutil
import tempfile
import urllib.parse
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from skinbatch.annotations.cvat import OWN_NAME
from skinbatch.errors import UsageError
from skinbatch.export.boxed import ExportedPhoto, decimals
from skinbatch.export.files import Files

FILE = "annotations.xml"
_SCORE = (
    "<attributes><attribute><name>score</name><mutable>False</mutable><input_type>text</input_type>"
    "<default_value></default_value><values></values></attribute></attributes>"
)


class CvatWriter:
    """Write CVAT.

    Scores are in the attribute `score` of each box, and boxes with a score have `source="auto"`.
    Images wait in a file until all classes are known, because the classes come first.
    """

    def __init__(self, files: Files, class_names: tuple[str, ...]) -> None:
        self._files = files
        self._classes = dict.fromkeys(class_names)
        self._photos = 0
        self._has_scores = False
        self._folder = files.scratch.enter_context(tempfile.TemporaryDirectory(prefix="skinbatch-"))
        path = Path(self._folder, "images")
        self._images = files.scratch.enter_context(
            path.open("w+", encoding="utf-8", buffering=1 << 20)
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self._classes)

    def add(self, photo: ExportedPhoto) -> None:
        if not photo.width or not photo.height:
            raise UsageError(
                f"{photo.name}: its size is not known, and CVAT needs it; name the folder of the photos with "
                "--photos, or export voc or coco"
            )
        size = f'width="{photo.width}" height="{photo.height}"'
        self._images.write(f'  <image id="{self._photos}" {_named(photo.name)} {size}>\n')
        self._photos += 1
        self._has_scores |= photo.scores is not None

        corners = decimals(photo.boxes.ravel())
        scores = None if photo.scores is None else decimals(photo.scores)
        for n, label in enumerate(photo.labels):
            self._classes.setdefault(label)
            self._images.write(
                _box(label, corners[4 * n : 4 * n + 4], None if scores is None else scores[n])
            )
        self._images.write("  </image>\n")

    def close(self) -> None:
        whole = Path(self._folder, FILE)
        with open(whole, "w", encoding="utf-8") as out:
            out.write(
                '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
            )
            out.write(f"  <meta><task><size>{self._photos}</size><mode>annotation</mode><labels>\n")
            for name in filter(None, self._classes):
                attributes = _SCORE if self._has_scores else "<attributes></attributes>"
                out.write(
                    f"    <label><name>{escape(name)}</name><type>rectangle</type>{attributes}</label>\n"
                )
            out.write("  </labels></task></meta>\n")
            self._images.seek(0)
            shutil.copyfileobj(self._images, out, 1 << 20)
            out.write("</annotations>\n")
        self._files.keys.append(FILE)
        self._files.store.put_file(FILE, whole)
        self._files.close()


def _named(name: str) -> str:
    """Return the name as attributes. CVAT changes some names, which are also given percent-encoded."""
    if name.isprintable() and name == name.strip() and "\\" not in name:
        return f"name={quoteattr(name)}"
    plain = "".join(c if c.isprintable() else "_" for c in name)
    return (
        f'name={quoteattr(plain)} {OWN_NAME}="{urllib.parse.quote(name, errors="surrogatepass")}"'
    )


def _box(label: str, corners: list[str], score: str | None) -> str:
    x1, y1, x2, y2 = corners
    where = f'xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" z_order="0"'
    if score is None:
        return f'    <box label={quoteattr(label)} source="manual" occluded="0" {where}></box>\n'
    attribute = f'<attribute name="score">{score}</attribute>'
    return (
        f'    <box label={quoteattr(label)} source="auto" occluded="0" {where}>{attribute}</box>\n'
    )
