"""Find the folder in which this machine keeps fetched packs and compiled networks."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return SKINBATCH_CACHE, or else `skinbatch` in XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("SKINBATCH_CACHE")
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "skinbatch"
    return Path(named or default).expanduser()
