"""Test a store whose requests may fail in twelve ways: the tables must be those of an undisturbed run."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from skinbatch.config import StorageSettings
from skinbatch.errors import StoreError
from skinbatch.runs.status import read_status
from skinbatch.storage.locate import open_store
from tests.conftest import S3Server, connect
from tests.faces import rows
from tests.faults.bench import differences, same_rows
from tests.faults.fault import Fault, Faults
from tests.faults.gateway import Gateway
from tests.faults.proxy import KINDS, Proxy, refusal
from tests.faults.zygote import Zygote

WHERE = ["uri", "version"]
Score = Callable[..., tuple[int, str]]


@pytest.fixture
def before() -> Iterator[Callable[..., Proxy]]:
    """Put a proxy before a server."""
    made: list[Proxy] = []

    def make(server: S3Server, **how: Any) -> Proxy:
        made.append(Proxy(str(server.settings.endpoint_url), **how))
        return made[-1]

    yield make
    for proxy in made:
        proxy.settle()
        proxy.close()


def upload(server: S3Server, archive: Path) -> str:
    """Create a bucket with the archive under `photos/`."""
    bucket = server.bucket()
    for path in archive.rglob("*"):
        if path.is_file():
            key = f"photos/{path.relative_to(archive).as_posix()}"
            server.client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    return bucket


@pytest.fixture
def score(zygote: Zygote, faults: Faults, fake_pack: str, tmp_path: Path) -> Iterator[Score]:
    """Score a bucket through a proxy; return the exit code and the output."""

    def run(
        proxy: Proxy, bucket: str, timeout_s: float = 1.5, max_attempts: int = 6
    ) -> tuple[int, str]:
        settings = tmp_path / "settings.toml"
        storage = {
            "endpoint_url": f'"{proxy.url}"',
            "timeout_s": timeout_s,
            "max_attempts": max_attempts,
        }
        settings.write_text(
            "[storage]\n" + "".join(f"{name} = {value}\n" for name, value in storage.items())
        )
        places = [f"s3://{bucket}/photos", f"s3://{bucket}/scored"]
        options = ["--engine", "local", "--pack", fake_pack, "--config", str(settings)]
        driver = zygote.start(["score", *places, *options], faults)
        return driver.end(240.0), driver.said

    yield run
    zygote.sweep()


def check(server: S3Server, bucket: str, undisturbed: Path) -> None:
    dest = f"s3://{bucket}/scored"
    assert differences(dest, server.settings) == []
    assert same_rows(dest, undisturbed, besides=WHERE, storage=server.settings)


# Share of the requests to disturb, and the largest number of them, for kinds that few requests can
# have or of which a run survives few: it waits for a stall, and asks five times for a listing that
# lacks something.
HITS = {
    "stall": (0.05, 3),
    "old": (0.5, 4),
    **dict.fromkeys(("short", "flip", "again", "late"), (0.4, 12)),
}
NOT_DRAWN_ABOVE = ("cut", "flip", "old", "late")
SERVERS = ["s3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("ceph", "rclone"))]
SEEDS = [2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (3, 4, 5))]


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_ends_right_while_a_twentieth_of_all_requests_is_hit(
    kind: str,
    seed: int,
    before: Callable[..., Proxy],
    request: pytest.FixtureRequest,
    archive: Path,
    undisturbed: Path,
    score: Score,
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    bucket = upload(server, archive)
    proxy = before(server, seed=seed)
    code, message = score(proxy, bucket)
    assert code == 0, f"{message} (seed {seed}, {dict(proxy.happened)})"
    assert proxy.happened
    proxy.settle()
    assert same_rows(f"s3://{bucket}/scored", undisturbed, besides=WHERE, storage=server.settings)
    retried = read_status(open_store(f"s3://{bucket}/scored", server.settings)).requests_retried
    asked_for = proxy.happened.total() + proxy.upset
    assert retried <= asked_for, (
        f"no more is asked again than was hit: {dict(proxy.happened)}, {proxy.upset} by itself"
    )
    proxy.share = 0.0
    assert score(proxy, bucket)[0] == 0  # what a late PUT has left is removed by the next run
    check(server, bucket, undisturbed)


def from_the_snapshot_on(proxy: Proxy) -> None:
    """Disturb nothing before the snapshot: earlier listings are new or not used again."""
    share, proxy.share = proxy.share, 0.0

    def refuse(method: str, path: str) -> None:
        if method == "PUT" and "/snapshots/" in path:
            proxy.share = share

    proxy.refuse = refuse


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in NOT_DRAWN_ABOVE else pytest.mark.slow) for k in KINDS]
)
def test_a_run_ends_right_whichever_way_its_requests_are_hit(
    kind: str,
    before: Callable[..., Proxy],
    s3: S3Server,
    archive: Path,
    undisturbed: Path,
    score: Score,
) -> None:
    bucket = upload(s3, archive)
    share, most = HITS.get(kind, (0.1, 15))
    proxy = before(s3, seed=1, share=share, kinds=[kind], most=most)
    if kind == "old":
        from_the_snapshot_on(proxy)
    code, message = score(proxy, bucket, max_attempts=8)
    assert code == 0, f"{message} ({dict(proxy.happened)})"
    assert proxy.happened[kind] > 0
    assert same_rows(f"s3://{bucket}/scored", undisturbed, besides=WHERE, storage=s3.settings)
    proxy.settle()
    assert same_rows(f"s3://{bucket}/scored", undisturbed, besides=WHERE, storage=s3.settings)
    proxy.share = 0.0
    assert score(proxy, bucket)[0] == 0
    check(s3, bucket, undisturbed)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("delay", "again")])
def test_what_every_request_suffers_is_an_error_after_bounded_tries(
    kind: str, before: Callable[..., Proxy], s3: S3Server
) -> None:
    bucket = s3.bucket()
    s3.client.put_object(Bucket=bucket, Key="a.png", Body=bytes(1000))
    (listed,) = open_store(f"s3://{bucket}", s3.settings).list()
    direct = open_store(f"s3://{bucket}", s3.settings)
    direct.put("a.json", b"what was written")
    if kind == "cut":  # an attempt that brings bytes does not count
        s3.client.put_object(Bucket=bucket, Key="a.png", Body=bytes(1))
        (listed,) = (info for info in direct.list() if info.key == "a.png")
    proxy = before(s3, share=1.0, kinds=[kind], stall_s=1.0)
    settings = StorageSettings(endpoint_url=proxy.url, max_attempts=3, timeout_s=0.3)
    store = open_store(f"s3://{bucket}", settings)
    ask: Callable[[], object] = {
        "old": lambda: list(store.list()),
        "late": lambda: store.put("b.json", b"b"),
        "flip": lambda: store.get("a.json"),
    }.get(kind, lambda: store.get("a.png", version=listed.version, size=listed.size))
    # An old listing cannot be told from a new one; the tests above show what a run does with a few.
    if kind == "old":
        once = ask()
        direct.put("c.json", b"since then")
        assert ask() == once != [*direct.list()]
        return
    with pytest.raises(StoreError):
        ask()
    assert proxy.requests == 3
    proxy.settle()


def test_a_late_put_lands_where_it_was_sent_and_not_where_its_connection_went_on(
    before: Callable[..., Proxy], s3: S3Server
) -> None:
    bucket = s3.bucket()
    proxy = before(s3, share=1.0, kinds=["late"], most=1)
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc)
    for key, status in (("first", 500), ("second", 200)):
        connection.request("PUT", f"/{bucket}/{key}", key.encode())
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()
    proxy.settle()
    store = open_store(f"s3://{bucket}", s3.settings)
    assert {key: store.get(key)[0] for key in [*store.keys()]} == {
        "first": b"first",
        "second": b"second",
    }


@pytest.mark.slow
def test_what_a_store_refused_for_a_while_is_counted_where_people_look(
    before: Callable[..., Proxy], s3: S3Server, archive: Path, score: Score
) -> None:
    bucket = upload(s3, archive)
    proxy = before(s3, seed=7, share=0.15, kinds=["throttle"])
    code, message = score(proxy, bucket, max_attempts=12)
    assert code == 0, message
    found = read_status(open_store(f"s3://{bucket}/scored", s3.settings))
    assert 0 < found.requests_throttled <= proxy.happened["throttle"]
    assert 0 < found.requests_retried <= proxy.happened["throttle"]


def test_a_photo_that_came_short_or_wrong_is_asked_for_again(
    before: Callable[..., Proxy], s3: S3Server
) -> None:
    bucket = s3.bucket()
    data = bytes(range(250))
    for kind, key in (("short", "a.png"), ("cut", "a.png"), ("flip", "a.json")):
        s3.client.put_object(Bucket=bucket, Key=key, Body=data, ChecksumAlgorithm="CRC32")
        listed = open_store(f"s3://{bucket}", s3.settings).head(key)
        proxy = before(s3, share=0.6, kinds=[kind], seed=3)
        store = open_store(
            f"s3://{bucket}", StorageSettings(endpoint_url=proxy.url, max_attempts=20)
        )
        for _ in range(5):
            assert store.get(key, version=listed.version, size=listed.size)[0] == data
        assert proxy.happened[kind] > 0


@pytest.mark.parametrize("kind", SERVERS)
def test_an_outage_leaves_units_open_and_never_becomes_a_row(
    kind: str,
    before: Callable[..., Proxy],
    request: pytest.FixtureRequest,
    archive: Path,
    undisturbed: Path,
    score: Score,
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    bucket = upload(server, archive)
    proxy = before(server, share=0.0)
    put_receipts: list[str] = []

    def refuse(method: str, path: str) -> Any:
        """Refuse everything from the second receipt on."""
        put_receipts.extend([path] * (method == "PUT" and "/receipts/" in path))
        return refusal(503, "ServiceUnavailable") if len(put_receipts) >= 2 else None

    proxy.refuse = refuse
    code, message = score(proxy, bucket, max_attempts=1)
    assert (code, "ServiceUnavailable" in message) == (4, True), message
    found = rows(f"s3://{bucket}/scored", storage=server.settings)
    assert 0 < len(found) < 46
    assert {row["status"] for row in found.values()} <= {"ok", "truncated"}
    proxy.refuse = lambda method, path: None
    assert score(proxy, bucket)[0] == 0
    check(server, bucket, undisturbed)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_bucket_that_is_not_there_is_named_at_once(
    kind: str,
    request: pytest.FixtureRequest,
    zygote: Zygote,
    archive: Path,
    faults: Faults,
    fake_pack: str,
    tmp_path: Path,
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[storage]\nendpoint_url = "{server.settings.endpoint_url}"\n')
    for places in (
        [f"s3://{server.bucket()}-not/photos", str(tmp_path / "out")],
        [str(archive), "s3://nowhere-at-all/out"],
    ):
        driver = zygote.start(
            ["score", *places, "--pack", fake_pack, "--config", str(settings)], faults
        )
        assert driver.end() == 2, driver.said
        assert "no such bucket" in driver.said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ceph", "rclone"])  # moto takes any keys
def test_keys_that_a_store_refuses_stop_the_run_at_once(
    kind: str,
    request: pytest.FixtureRequest,
    before: Callable[..., Proxy],
    archive: Path,
    score: Score,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    bucket = upload(server, archive)
    proxy = before(server, share=0.0)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "NoSuchKeyOrSecret")
        code, message = score(proxy, bucket)
        assert code == 2, message
        assert "Traceback" not in message and "NoSuchKeyOrSecret" not in message
    assert proxy.requests <= 16


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "AccessDenied", "access denied"),
        pytest.param(404, "NoSuchBucket", "no such bucket", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("method", ["GET", pytest.param("PUT", marks=pytest.mark.slow)])
def test_a_refusal_of_everything_stops_the_run_at_once_with_its_reason(
    method: str,
    status: int,
    code: str,
    says: str,
    before: Callable[..., Proxy],
    s3: S3Server,
    archive: Path,
    score: Score,
) -> None:
    bucket = upload(s3, archive)
    proxy = before(s3, share=0.0)
    refused: list[str] = []

    def refuse(asked: str, path: str) -> Any:
        """Refuse to read photos, or to write tables, from the plan on."""
        if asked != method or not ("/photos/" in path if method == "GET" else "/images/" in path):
            return None
        refused.append(path)
        return refusal(status, code)

    proxy.refuse = refuse
    ended, message = score(proxy, bucket)
    assert (ended, says in message) == (2, True), message
    assert len(refused) <= 32
    assert len(rows(f"s3://{bucket}/scored", storage=s3.settings)) == 0


@pytest.mark.slow
def test_a_store_that_dies_and_comes_back_in_mid_run_costs_nothing(
    gateway: Gateway,
    before: Callable[..., Proxy],
    archive: Path,
    undisturbed: Path,
    faults: Faults,
    score: Score,
) -> None:
    endpoint = gateway.facts["S3_ENDPOINT_URL"]
    server = connect(endpoint)
    bucket = upload(server, archive)
    proxy = before(server, share=0.0)
    faults.plan([Fault("worker", "put receipts", "after", 2, "stop")])
    died = threading.Event()

    def die() -> None:
        """Kill a worker between a unit's receipt and its end."""
        while not faults.happened:
            died.wait(0.02)
        gateway.kill()
        os.kill(faults.happened[0][1], signal.SIGCONT)
        died.wait(2.0)  # long enough for the run to notice
        gateway.start()
        died.set()

    killer = threading.Thread(target=die)
    killer.start()
    code, message = score(proxy, bucket, timeout_s=10.0, max_attempts=8)
    killer.join()
    assert died.is_set()
    assert code == 0, message
    check(server, bucket, undisturbed)
