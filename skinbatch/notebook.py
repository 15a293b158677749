"""Show results in a notebook: pictures, a summary, and tables for pandas, Polars and supervision."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from skinbatch.config import Config
from skinbatch.errors import UsageError
from skinbatch.runs.results import Results
from skinbatch.runs.status import unfinished

if TYPE_CHECKING:
    import pandas
    import polars
    import supervision
    from PIL import Image


class NotebookResults(Results):
    """Read the tables of one scoring, and show them in a notebook."""

    def show(self, image_id: str, config: Config | None = None) -> Image.Image:
        """Return a photo with its mask, boxes, scores and grade drawn on it.

        The photo is read again from its source.

        Args:
            image_id: As in the table `images`.
            config: Settings for reading the source, if it needs others than the destination.

        Returns:
            A PIL image, which a notebook displays.

        Raises:
            UsageError: If the photo is not in the tables, or is gone or has changed since it was
                scored.

        Example:
            >>> skinbatch.open("scored").show("visit-1/a.jpg").save("a.png")  # doctest: +SKIP
        """
        from PIL import Image

        from skinbatch.report.show import show

        (shown,) = show(self, [image_id], config or Config())
        return Image.fromarray(shown.picture)

    def to_pandas(self, table: str = "images") -> pandas.DataFrame:
        """Return the table `images` or `boxes` as a pandas DataFrame with nullable Arrow types.

        Example:
            >>> skinbatch.open("scored").to_pandas()["count_total"].sum()
            5
        """
        import pandas

        return self._table(table).to_pandas(types_mapper=pandas.ArrowDtype)

    def to_polars(self, table: str = "images") -> polars.DataFrame:
        """Return the table `images` or `boxes` as a Polars DataFrame.

        Example:
            >>> skinbatch.open("scored").to_polars()["count_total"].sum()
            5
        """
        import polars

        return polars.DataFrame(polars.from_arrow(self._table(table)))

    def to_supervision(self, image_id: str) -> supervision.Detections:
        """Return the stored boxes of a photo as supervision's Detections.

        `xyxy` is in pixels of the displayed photo. `data` holds `class_name`, `counted` and `side`
        of each box.

        Raises:
            UsageError: If the photo is not in the tables.

        Example:
            >>> skinbatch.open("scored").to_supervision("visit-1/a.jpg").xyxy.shape
            (4, 4)
        """
        import supervision

        from skinbatch.report.photo_again import find_rows

        (row,) = find_rows(self, [image_id], ["image_id", "status", "error", "unit_id"])
        boxes = self.unit(row["unit_id"])[1]
        mine = boxes.filter(pc.equal(boxes.column("image_id"), image_id))

        labels = mine.column("label").to_pylist()
        number = {name: n for n, name in enumerate(self.class_names)}
        corners = [mine.column(edge).to_numpy() for edge in ("x1", "y1", "x2", "y2")]
        return supervision.Detections(
            xyxy=np.stack(corners, axis=1).reshape(-1, 4),
            confidence=mine.column("score").to_numpy(),
            class_id=np.array([number[name] for name in labels], int),
            data={
                "class_name": np.array(labels, str),
                "counted": mine.column("counted").to_numpy(),
                "side": np.array(mine.column("side").to_pylist(), object),
            },
        )

    def _table(self, name: str) -> Any:
        if name not in ("images", "boxes"):
            raise UsageError(f"no table {name!r}: there are images and boxes")
        return self.images() if name == "images" else self.boxes()

    def _repr_html_(self) -> str:
        """Return a summary: photos by status and by grade, and what is missing."""
        table = self.images(["status", "grade"])
        missing = unfinished(self)
        state = "finished" if missing is None else "not finished yet"
        rows = [
            ("scoring", f"{self.fingerprint} ({state})"),
            ("photos", f"{table.num_rows:,}"),
            ("status", _counted(table.column("status").to_pylist())),
            (
                "grade",
                _counted(grade for grade in table.column("grade").to_pylist() if grade is not None),
            ),
        ]
        rows += [("note", note) for note in (self.note, missing) if note is not None]
        cells = "".join(f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in rows)
        return f"<table><caption>{escape(self.store.uri)}</caption>{cells}</table>"


def _counted(values: Any) -> str:
    return (
        ", ".join(f"{count:,} {value}" for value, count in Counter(values).most_common()) or "none"
    )
