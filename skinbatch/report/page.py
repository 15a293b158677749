"""Fill the HTML templates of reports and write the pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from skinbatch.errors import UsageError


def render(template: str, **values: Any) -> str:
    """Return a page from a template. Everything that comes from users is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("skinbatch.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(**values)


def write_page(path: Path, page: str) -> None:
    """Write a page. Raises UsageError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as e:
        raise UsageError(f"{path}: cannot be written: {e.strerror or e}") from None
