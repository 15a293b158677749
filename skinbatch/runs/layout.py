"""Define where everything lies in a destination, as keys relative to its root.

No other file spells these keys.
"""

from __future__ import annotations

import re
import secrets

DEST = "_skinbatch/dest.json"
CLAIM = "_skinbatch/claim.json"
SCORINGS = "_skinbatch/scorings/"
RUNS = "_skinbatch/runs/"
_MERGED = re.compile(r"units\.([0-9a-f]{64})\.([0-9a-f]{16})\.parquet")
_NUMBERED = re.compile(r"(\d+)\.([0-9a-f]{12})(?:\.|$)")
DATA_KINDS = ("images", "boxes", "masks")


def fresh() -> str:
    """Return a random part for a name that nobody else can have chosen."""
    return secrets.token_hex(6)


def data_prefix(kind: str, fingerprint: str) -> str:
    return f"{kind}/scoring={fingerprint}/"


def data_key(kind: str, fingerprint: str, unit_id: str, attempt: str) -> str:
    return f"{data_prefix(kind, fingerprint)}{unit_id}.{attempt}.parquet"


def data_name(prefix: str, key: str) -> tuple[str, str] | None:
    """Return (unit_id, attempt) of a key that `data_key` made, None for any other.

    prefix: of its kind and scoring.
    """
    unit_id, dot, attempt = key[len(prefix) :].removesuffix(".parquet").rpartition(".")
    return (unit_id, attempt) if dot and key == f"{prefix}{unit_id}.{attempt}.parquet" else None


def merged_key(kind: str, fingerprint: str, sha256: str, footer: str) -> str:
    """Return the key of a file that holds the tables of many units.

    It sorts after the files of units: a listing in order that lacks a unit's deleted file shows the
    merged file, which was there before the deletion.

    Args:
        sha256: of the whole file.
        footer: first 16 digits of the SHA-256 of its footer.
    """
    return f"{data_prefix(kind, fingerprint)}units.{sha256}.{footer}.parquet"


def merged_hashes(key: str) -> tuple[str, str] | None:
    """Return (sha256, footer) of a key that `merged_key` made, None for any other."""
    match = _MERGED.fullmatch(key.rpartition("/")[2])
    return None if match is None else (match[1], match[2])


def scoring_key(fingerprint: str) -> str:
    return f"{SCORINGS}{fingerprint}.json"


def plans_prefix(fingerprint: str) -> str:
    return f"_skinbatch/plans/{fingerprint}/"


def receipts_prefix(fingerprint: str) -> str:
    return f"_skinbatch/receipts/{fingerprint}/"


def receipt_key(fingerprint: str, unit_id: str, generation: int, attempt: str) -> str:
    return f"{receipts_prefix(fingerprint)}{unit_id}/{generation}.{attempt}.json"


def receipt_name(prefix: str, key: str) -> tuple[str, int, str] | None:
    """Return (unit_id, generation, attempt) of a key that `receipt_key` made, None for any other.

    prefix: of its scoring.
    """
    unit_id, _, name = key[len(prefix) :].partition("/")
    digits, _, rest = name.partition(".")
    if not (digits.isascii() and digits.isdigit()):
        return None
    generation, attempt = int(digits), rest.removesuffix(".json")
    return (
        (unit_id, generation, attempt)
        if key == f"{prefix}{unit_id}/{generation}.{attempt}.json"
        else None
    )


def snapshots_prefix(fingerprint: str) -> str:
    return f"_skinbatch/snapshots/{fingerprint}/"


def folds_prefix(fingerprint: str) -> str:
    return f"_skinbatch/folds/{fingerprint}/"


def attempts_prefix(fingerprint: str) -> str:
    """Return the folder of attempts that ended with the death of their worker."""
    return f"_skinbatch/attempts/{fingerprint}/"


def all_grading_data_prefix(fingerprint: str) -> str:
    return f"gradings/scoring={fingerprint}/"


def grading_data_prefix(fingerprint: str, grading: str) -> str:
    return f"{all_grading_data_prefix(fingerprint)}grading={grading}/"


def gradings_prefix(fingerprint: str) -> str:
    return f"_skinbatch/gradings/{fingerprint}/"


def numbered(n: int) -> str:
    """Return `<n>.<random>`, the name of a plan, snapshot or fold."""
    return f"{n}.{fresh()}"


def number_of(name: str) -> tuple[int, str]:
    """Return (n, random) of a name made by `numbered`, with or without a suffix.

    Raises ValueError for any other name.
    """
    match = _NUMBERED.match(name)
    if match is None:
        raise ValueError(f"{name!r} is not <n>.<random>")
    return int(match[1]), match[2]


def newest_first(names: set[str] | list[str]) -> list[str]:
    """Return names made by `numbered`, highest n first, then smallest random. Others are left out."""
    ours = (name for name in names if _NUMBERED.match(name))
    return sorted(ours, key=lambda name: (-number_of(name)[0], number_of(name)[1]))
