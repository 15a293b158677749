"""What several commands have in common: arguments, options, and how a result is printed as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Folder, tar, zip, Parquet, listing (uri column) or S3 Inventory manifest; local or s3://bucket/prefix.",
    ),
]
Dest = Annotated[
    str, typer.Argument(metavar="DEST", help="Where the tables go, or are: a folder or s3://bucket/prefix.")
]
PackName = Annotated[str | None, typer.Option("--pack", help="Name of a pack, or its folder. (default: starter)")]
EngineName = Annotated[
    str | None,
    typer.Option("--engine", help="ray (embedded unless a cluster is named) or local (no Ray). (default: ray)"),
]
RayAddress = Annotated[str | None, typer.Option("--ray-address", help="Ray cluster; also by RAY_ADDRESS.")]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Workers. (default: one a GPU, or one a core with 2 GB of memory)")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings; options win over it.")]
LogFormat = Annotated[
    str | None,
    typer.Option(
        "--log-format",
        help="text, or json: on stderr one object a line, with `event`, `unit_id`, `image_id`. (default: text)",
    ),
]
Photos = Annotated[
    Path | None,
    typer.Option("--photos", metavar="DIR", help="Folder of the photos, where they are not beside the annotations."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Scoring = Annotated[
    str | None, typer.Option("--scoring", help="Fingerprint, or its first digits. (default: that of the newest run)")
]
Grading = Annotated[
    str | None,
    typer.Option(
        "--grading", help="Grading by `skinbatch regrade`: its id or scheme. (default: that of the first run)"
    ),
]


def print_json(value: Any) -> None:
    """Indented, keys sorted, so that two runs can be compared as text."""
    print(json.dumps(value, indent=2, sort_keys=True, default=str))
