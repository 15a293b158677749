"""Read the severity in ACNE04's names of photos: `levle2_31.jpg`, spelled like this."""

from __future__ import annotations

import re

_LEVEL = re.compile(r"(?:^|/)levle([0-3])_[^/]*$", re.IGNORECASE)


def severity_of(name: str) -> int | None:
    """Return 0-3 for a photo's key; None if its file is not named in ACNE04's way."""
    match = _LEVEL.search(name)
    return int(match[1]) if match else None
