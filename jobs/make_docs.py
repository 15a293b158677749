"""Write the generated pages of docs/: `python jobs/make_docs.py`.

docs/output-format.md comes from the Arrow schemas, docs/settings.md from the settings classes. A
test compares the pages with what this file writes.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from skinbatch.config import Config
from skinbatch.models.pack import load_pack
from skinbatch.tables.dictionary import dictionary
from skinbatch.tables.schema import SCHEMA_VERSION

DOCS = Path(__file__).parents[1] / "docs"

_HEADER = "<!-- Written by `python jobs/make_docs.py`. Edit the source, not this page. -->\n"


def settings_page() -> str:
    """Return docs/settings.md: every setting with its type, default and meaning."""
    lines = [
        "# Settings",
        "",
        _HEADER,
        "Settings come from a TOML file (`skinbatch score SOURCE DEST --config FILE`), from command-line options, or from",
        "keyword arguments in Python. Options and arguments win over the file. Unknown names are refused.",
        "",
        "| setting | type | default | meaning |",
        "|---|---|---|---|",
        *_rows(Config),
    ]

    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            lines += ["", f"## [{name}]", "", inspect.getdoc(section) or "", ""]
            lines += [
                "| setting | type | default | meaning |",
                "|---|---|---|---|",
                *_rows(section),
            ]

    return "\n".join(lines) + "\n"


def _rows(section: type[BaseModel]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            yield f"| `{name}` | {_type_text(field.annotation)} | {_default(field)} | {field.description} |"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


# TOML's names for its types.
_TOML_TYPES = {
    str: "string",
    int: "integer",
    float: "float",
    bool: "boolean",
    datetime: "date or text",
}


def _type_text(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type_text(inner[0])
    if origin is Literal:
        return " or ".join(f'`"{choice}"`' for choice in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_text(part) for part in inner if part is not type(None))
    if origin is tuple:
        return f"list of {_type_text(inner[0])}s"
    return _TOML_TYPES[kind]


def output_page() -> str:
    """Return docs/output-format.md: the layout of a destination and every column of its tables."""
    pack = load_pack("starter")
    lines = ["# Output format", "", _HEADER, _INTRODUCTION.format(version=SCHEMA_VERSION).strip()]
    for table in dictionary(pack.detector_classes, pack.prob_columns, pack.segmenter.classes):
        lines += [
            "",
            f"## `{table.name}`",
            "",
            table.rows,
            "",
            "| column | type | null | meaning |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| `{column.name}` | {column.type} | {'yes' if column.nullable else 'no'} | {column.meaning} |"
            for column in table.columns
        ]

    return "\n".join(lines) + "\n"


_INTRODUCTION = """
A destination is a folder or a bucket prefix. The tables are Parquet, schema version {version}. All files of a scoring have the
same columns, so any tool opens the glob:

```sql
select grade, count(*) from 'scored/images/scoring=*/*.parquet' group by grade
```

Columns that depend on the pack (`count_<class>`, `prob_<class>`, `rle_<class>`) are shown here for the starter pack.

```
DEST/images/scoring=<fp>/<unit>.<attempt>.parquet     one row for each photo
DEST/boxes/scoring=<fp>/<unit>.<attempt>.parquet      one row for each box
DEST/masks/scoring=<fp>/<unit>.<attempt>.parquet      with --save-masks
DEST/…/scoring=<fp>/units.<hashes>.parquet            many units in one file, by `skinbatch compact`
DEST/gradings/scoring=<fp>/grading=<id>/…            by `skinbatch regrade`
DEST/_skinbatch/                                      plans, receipts, snapshots and run records
```

`<fp>` is the scoring's fingerprint. While a run is going, use `skinbatch.open(DEST)`, which shows finished units only. While
`skinbatch compact` is at work, a glob may show some rows twice for a moment; `skinbatch.open` never does.
"""


def main() -> None:
    """Write all generated pages."""
    (DOCS / "settings.md").write_text(settings_page(), encoding="utf-8")
    (DOCS / "output-format.md").write_text(output_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
