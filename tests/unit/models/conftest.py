"""Provide one random pack for the session, and a copy of it for tests that damage it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.models.support import write_random_pack


@pytest.fixture(scope="session")
def random_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shared pack. No test may change it."""
    return write_random_pack(tmp_path_factory.mktemp("packs") / "random")


@pytest.fixture
def own_pack(random_pack: Path, tmp_path: Path) -> Path:
    """Return a copy that the test may damage."""
    return Path(shutil.copytree(random_pack, tmp_path / "random"))


@pytest.fixture(scope="session")
def mmdet_configs() -> Path:
    """Return the folder of configs in mmdet's package."""
    from skinbatch.models.detectors.mmdet.register import register

    register()
    import mmdet

    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    if not folder.is_dir():
        pytest.skip("this mmdet came without its configs")
    return folder
