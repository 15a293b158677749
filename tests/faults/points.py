"""Provide faults as parameters of a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.faults.fault import Fault


def and_slow(fast: Sequence[Fault], slow: Sequence[Fault]) -> list[Any]:
    """Return named parameters of a test, all but the first few marked slow."""
    name = "{0.when} {0.point}".format
    marked = [pytest.param(f, id=name(f), marks=pytest.mark.slow) for f in slow]
    return [*(pytest.param(f, id=name(f)) for f in fast), *marked]
