"""ACNE04 writes a photo's severity into its name: `levle2_31.jpg`, spelled so."""

from __future__ import annotations

import re

_LEVEL = re.compile(r"(?:^|/)levle([0-3])_[^/]*$", re.IGNORECASE)


def severity_of(name: str) -> int | None:
    """0-3 of a photo's key; None where its file is not named in ACNE04's way."""
    found = _LEVEL.search(name)
    return int(found[1]) if found else None
