"""Parse lengths of time and moments as people write them on a command line or in a settings file."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def seconds_of(text: str) -> float:
    """Return the seconds in `90`, `45s`, `30m`, `6h`, `1h30m` or `2d`.

    Raises:
        ValueError: If the text is not a length of time over 0.

    Example:
        >>> seconds_of("1h30m")
        5400.0
    """
    plain = text.strip().lower().replace(" ", "")
    try:
        seconds = float(plain)
    except ValueError:
        if not plain or _PART.sub("", plain):
            raise ValueError(
                f"{text!r} is not a length of time; write it like 45s, 30m, 6h, 1h30m or 2d"
            ) from None
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(plain))

    if not 0 < seconds < float("inf"):
        raise ValueError(f"{text!r} is not a length of time over 0")
    return seconds


def moment_of(text: str, now: datetime | None = None) -> datetime:
    """Return the moment that a date, a date with a time, or a length of time before now names.

    Args:
        text: `2026-11-29`, `2026-11-29T22:00`, `2026-11-29T22:00Z`, or `36h`. A date without a zone is one of this
            machine's own zone.
        now: The moment from which a length of time is counted back. By default the present.

    Returns:
        A moment with its time zone.

    Raises:
        ValueError: If the text is neither.
    """
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except ValueError:
        pass

    try:
        ago = seconds_of(text)
        return (now or datetime.now().astimezone()) - timedelta(seconds=ago)
    except (ValueError, OverflowError):
        way_out = (
            "write a date like 2026-11-29 or 2026-11-29T22:00Z, or a time before now like 36h or 2d"
        )
        raise ValueError(f"{text!r} is not a moment; {way_out}") from None
