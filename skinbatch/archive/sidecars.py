"""Pass texts through from a shard's sidecars and columns, within limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from skinbatch.archive.member import Member, MemberError
from skinbatch.redact import redacted

# The ending of a sidecar's name.
SIDECAR = ".json"
_SIDECAR_BYTES = 1 << 20
_META_KEYS = 256
_META_KEY_LENGTH = 256
_META_TEXT = 128 << 20


def flat_meta(values: Mapping[str, Any]) -> dict[str, str]:
    """Return pass-through columns as text.

    Numbers, lists and objects become JSON, and other values (a UUID) their plain text. Null values
    are left out. Signed query strings are removed, because datasets carry them along with the
    addresses of their photos.
    """
    return {str(key): redacted(_text(value)) for key, value in values.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, bool | int | float | list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def read_sidecar(member: Member) -> dict[str, str]:
    """Return the fields of a sidecar; {} if it is too large or not a JSON object."""
    if member.size > _SIDECAR_BYTES:
        return {}
    try:
        fields = json.loads(member.read())
        return flat_meta(fields) if isinstance(fields, dict) else {}
    except (MemberError, ValueError, RecursionError):
        return {}


class Texts:
    """Limit the text that passes through: a shard of megabytes can unpack to gigabytes of it."""

    def __init__(self) -> None:
        self._left = _META_TEXT

    def fit(self, meta: Mapping[str, str]) -> bool:
        """Return whether these values are within the limit, together with all before them."""
        self._left -= sum(len(value) for value in meta.values())
        return self._left >= 0


class Keys:
    """Limit the sidecar keys that pass through, and their texts."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._texts = Texts()

    def kept(self, meta: dict[str, str]) -> dict[str, str]:
        """Return the fields that pass."""
        if not self._texts.fit(meta):
            return {}
        for key in meta:
            if len(self._known) >= _META_KEYS:
                break
            if len(key) <= _META_KEY_LENGTH:
                self._known.add(key)
        return {key: value for key, value in meta.items() if key in self._known}
