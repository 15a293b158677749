"""Provide a destination on disk."""

from pathlib import Path

import pytest

from skinbatch.storage.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "out"))
