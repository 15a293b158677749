"""Score archives of face photos: skin masks, acne lesions, counts, grades and skin diseases.

report = skinbatch.score("s3://bucket/photos", "s3://bucket/scored")
images = skinbatch.open("s3://bucket/scored").images()
result = skinbatch.Scorer("starter")("face.jpg")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skinbatch.engines.score import retry as retry
    from skinbatch.engines.score import score as score
    from skinbatch.reading import open as open
    from skinbatch.reading import verify as verify
    from skinbatch.scoring.scorer import Scorer as Scorer

__version__ = "0.1.0"

_PUBLIC = {
    "Scorer": "skinbatch.scoring.scorer",
    "open": "skinbatch.reading",
    "retry": "skinbatch.engines.score",
    "score": "skinbatch.engines.score",
    "verify": "skinbatch.reading",
}

__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    """Import a public name on first use: reading tables needs neither torch nor Ray."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'skinbatch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
