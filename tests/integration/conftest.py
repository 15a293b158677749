"""What all suites of the whole pipeline need: packs of fakes, and threads that do not crowd the machine."""

from __future__ import annotations

import pytest

from skinbatch.models.fake import write_fake_pack


@pytest.fixture(scope="session")
def fake_pack(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_fake_pack(tmp_path_factory.mktemp("packs") / "fake"))


@pytest.fixture(scope="session")
def mortal_pack(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its segmenter dies, hangs or raises on photos that say so."""
    return str(write_fake_pack(tmp_path_factory.mktemp("packs") / "mortal", mortal=True))
