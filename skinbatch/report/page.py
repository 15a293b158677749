"""Fill the HTML templates of reports and write the pages."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

import jinja2

from skinbatch.errors import UsageError


def render(template: str, **values: Any) -> str:
    """Return a page from a template. Everything that comes from users is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("skinbatch.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["code"] = _with_code
    return environment.get_template(template).render(**values)


def _with_code(text: str) -> str:
    """Return a text as HTML in which what is between backticks is code; `safe` has to follow."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def write_page(path: Path, page: str) -> None:
    """Write a page. Raises UsageError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as e:
        raise UsageError(
            f"{path}: cannot be written: {e.strerror or e}; name another file with --output"
        ) from None
