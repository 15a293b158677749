"""Fit anchors to annotated boxes for a detector's config: `skinbatch pack anchors`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from skinbatch.annotations.read import read_truth, refuse_wrong_units
from skinbatch.errors import UsageError
from skinbatch.models.detectors.anchors import fit_anchors, mean_iou
from skinbatch.train.annotated_boxes import network_sizes

# The curve covers 1 to this many anchors, or to the number that is fitted if that is larger.
MOST = 12
SIZE = 640
_HEADER = re.compile(r"\s*\[{1,2}[A-Za-z_\"'][^\[\],]*\]{1,2}\s*(#.*)?")
_ANCHORS = re.compile(r"\s*\[\s*anchors\s*\]\s*(#.*)?")


@dataclass(frozen=True, slots=True)
class AnchorReport:
    """Hold fitted anchors and how well they cover the boxes.

    Attributes:
        size, max_upscale: the scale at which the boxes were measured.
        anchors: widths and heights in pixels of the network's input, the smallest first.
        curve: number of anchors -> mean IoU of a box with its nearest anchor.
        left_out: reason -> the names of the photos, one entry a box.
        swapped: number of boxes whose corners were put right.
        written: files.
    """

    photos: int
    boxes: int
    size: int
    max_upscale: float
    anchors: tuple[tuple[float, float], ...]
    mean_iou: float
    curve: Mapping[int, float]
    left_out: Mapping[str, tuple[str, ...]]
    swapped: int
    written: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        lines = [f"{self.boxes} boxes of {self.photos} photos, at {self.size} px"]
        if self.swapped:
            lines.append(
                f"corrected: {self.swapped} {'box' if self.swapped == 1 else 'boxes'} with swapped corners"
            )
        for reason, names in self.left_out.items():
            shown = list(dict.fromkeys(names))
            more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
            lines.append(f"left out: {len(names)} {reason}: {', '.join(shown[:3])}{more}")
        lines += ["", "  k  mean IoU"]
        for k, covered in self.curve.items():
            lines.append(f" {k:2d}  {covered:.3f}{'  <- chosen' if k == len(self.anchors) else ''}")
        lines += [
            "",
            "anchors (width x height): " + ", ".join(f"{w:g} x {h:g}" for w, h in self.anchors),
        ]
        return "\n".join([*lines, *(f"wrote {path}" for path in self.written)])


def report_anchors(
    truth: Path,
    k: int = 9,
    *,
    size: int | None = None,
    max_upscale: float | None = None,
    output: Path | None = None,
    plot: Path | None = None,
    photos: Path | None = None,
) -> AnchorReport:
    """Fit `k` anchors to the boxes of annotated photos, and a curve of 1 to 12 anchors beside them.

    Args:
        truth, photos: see read_truth.
        size, max_upscale: None: the values in `output` if that file exists, otherwise 640 and 1.
        output: a TOML file for `pack import --config`. If it exists, only its table [anchors] is
            replaced.
        plot: a PNG file for the curve.

    Raises:
        UsageError: there are no boxes, or fewer different boxes than anchors, or a file cannot be
            read or written.
    """
    before = _config(output) if output else {}
    size = int(_settled("size", size, before, SIZE, output))
    max_upscale = float(_settled("max_upscale", max_upscale, before, 1.0, output))
    read = read_truth(truth, photos=photos)
    refuse_wrong_units(read)
    annotated = read.photos
    sizes = network_sizes(annotated, size, max_upscale)
    if not len(sizes.wh):
        reasons = ", ".join(f"{len(names)} {reason}" for reason, names in sizes.left_out.items())
        raise UsageError(
            f"{truth}: no usable box in {sizes.photos} photos"
            + (f" (left out: {reasons})" if reasons else "")
        )
    different = len(np.unique(sizes.wh, axis=0))
    if k > different:
        raise UsageError(
            f"{truth}: {different} different boxes cannot make {k} anchors; give a smaller --anchors"
        )
    fits = {n: fit_anchors(sizes.wh, n) for n in range(1, min(max(MOST, k), different) + 1)}
    anchors = np.round(fits[k], 1)
    curve = {n: round(mean_iou(sizes.wh, fit), 4) for n, fit in fits.items()}
    report = AnchorReport(
        photos=sizes.photos,
        boxes=len(sizes.wh),
        size=size,
        max_upscale=max_upscale,
        anchors=tuple((float(w), float(h)) for w, h in anchors),
        mean_iou=round(mean_iou(sizes.wh, anchors), 4),
        curve=curve,
        left_out=sizes.left_out,
        swapped=sum(len(photo.swapped) for photo in annotated),
        written=tuple(str(path) for path in (output, plot) if path),
    )
    if output:
        _write_config(output, report, before)
    if plot:
        _draw(report, plot)
    return report


def _settled(
    name: str, given: float | None, before: Mapping[str, Any], default: float, path: Path | None
) -> float:
    """Return the option or the value in the config; raise UsageError if they differ.

    Anchors fit only one input size.
    """
    value = before.get(name, default if given is None else given)
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise UsageError(
            f"{path if name in before else 'options'}: `{name}` is not a number over 0 (got {value!r})"
        )
    if given is not None and given != value:
        raise UsageError(
            f"{path}: {name} is {value} there and {given} in the option; anchors fit only one of them: change one"
        )
    return value


def _config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise UsageError(
            f"{path}: exists but is not readable as TOML: {e}; name another file"
        ) from None


def _write_config(path: Path, report: AnchorReport, before: Mapping[str, Any]) -> None:
    """Replace or append the table as text to keep comments; check the result before writing it."""
    sizes = ",\n".join(f"    [{w!r}, {h!r}]" for w, h in report.anchors)
    table = ["[anchors]", f"sizes = [\n{sizes},\n]"]
    if path.exists():
        text = _with_table(path.read_text(encoding="utf-8").splitlines(), table)
        expected = {**before, "anchors": {"sizes": [list(a) for a in report.anchors]}}
    else:
        head = [f"size = {report.size}", f"max_upscale = {report.max_upscale!r}", ""]
        text = "\n".join([*head, *table]) + "\n"
        expected = tomllib.loads(text)
    try:
        kept = tomllib.loads(text) == expected
    except tomllib.TOMLDecodeError:
        kept = False
    if not kept:
        raise UsageError(
            f"{path}: its anchors are not a table [anchors] of their own that could be replaced; remove them"
        )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise UsageError(f"{path}: cannot be written: {e.strerror}") from None


def _with_table(lines: list[str], table: list[str]) -> str:
    start = next((n for n, line in enumerate(lines) if _ANCHORS.fullmatch(line)), len(lines))
    stop = next(
        (n for n in range(start + 1, len(lines)) if _HEADER.fullmatch(lines[n])), len(lines)
    )
    before = (
        [*lines[:start], ""]
        if start == len(lines) and lines and lines[-1].strip()
        else lines[:start]
    )
    after = ["", *lines[stop:]] if stop < len(lines) else []
    return "\n".join([*before, *table, *after]) + "\n"


def _draw(report: AnchorReport, path: Path) -> None:
    figure = Figure(figsize=(6.4, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    ks, covered = list(report.curve), list(report.curve.values())
    axes.plot(ks, covered, marker="o", color="#1f5f8b", linewidth=1.6, markersize=5)
    k = len(report.anchors)
    axes.plot([k], [report.curve[k]], marker="o", color="#c8442c", markersize=10)
    axes.annotate(
        f"k = {k}: {report.curve[k]:.3f}",
        (k, report.curve[k]),
        xytext=(0, -22),
        textcoords="offset points",
        ha="center",
        color="#c8442c",
    )
    axes.set_xticks(ks)
    axes.set_xlabel("anchors (k)")
    axes.set_ylabel("mean IoU of a box with its nearest anchor")
    axes.set_title(
        f"{report.boxes:,} boxes of {report.photos:,} photos, at {report.size} px", fontsize=11
    )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, format="png")
    except OSError as e:
        raise UsageError(f"{path}: cannot be written: {e.strerror}") from None
