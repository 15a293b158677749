"""Provide what the fault tests share: an archive, an undisturbed run, and processes to kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import skinbatch
from tests.conftest import SHARED
from tests.faults.bench import write_archive
from tests.faults.fault import Faults
from tests.faults.gateway import Gateway
from tests.faults.trial import Trial
from tests.faults.zygote import Zygote

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("faults") / "photos")


@pytest.fixture(scope="session")
def undisturbed(archive: Path, fake_pack: str) -> Path:
    out = archive.parent / "undisturbed"
    assert skinbatch.score(archive, out, pack=fake_pack, engine="local").exit_code == 0
    return out


@pytest.fixture
def gateway(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Gateway]:
    """Start a Ceph gateway and put its keys into the environment."""
    script = SHARED / "s3" / "start"
    if not script.exists():
        pytest.skip(f"needs {script}")
    made = Gateway(script, tmp_path_factory.mktemp("gateway"))
    made.start()
    for name in KEYS:
        monkeypatch.setenv(name, made.facts[name])
    yield made
    made.wipe()


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path / "faults").plan([])


@pytest.fixture
def trial(
    archive: Path, undisturbed: Path, fake_pack: str, zygote: Zygote, tmp_path: Path
) -> Iterator[Trial]:
    """Return a trial: the archive and a fresh destination, scored by processes of its own."""
    made = Trial(
        archive,
        tmp_path / "out",
        undisturbed,
        fake_pack,
        zygote,
        Faults(tmp_path / "faults").plan([]),
    )
    yield made
    zygote.sweep()
