"""Test whole runs from and to S3, on moto's server and on a real Ceph gateway."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skinbatch
from skinbatch.config import Config, EngineSettings, parse_config
from skinbatch.engines.driver import drive
from skinbatch.engines.local import LocalEngine, LocalPool
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import prepare
from skinbatch.errors import UsageError
from skinbatch.runs.run_report import RunReport
from skinbatch.scoring.assignment import ScoringContext
from tests.conftest import S3Server
from tests.faces import comparable, counts, face, jpeg, png, rows, tar_bytes, write_tree

FILES = {
    **{f"loose/{n:02}.jpg": jpeg(face(n % 5, n % 3, n)) for n in range(12)},
    "shards/a.tar": tar_bytes({f"{n}.png": png(face(n, 1, 40 + n)) for n in range(5)}),
    "shards/b.tar": tar_bytes({f"{n}.png": png(face(0, n, 60 + n)) for n in range(3)}),
    "bad/empty.png": b"",
    "bad/space in + name.jpg": b"no photo",
    "readme.txt": b"text",
}


def put_all(server: S3Server, bucket: str, files: dict[str, bytes], prefix: str = "") -> None:
    for key, data in files.items():
        server.client.put_object(Bucket=bucket, Key=prefix + key, Body=data)


def settings_of(server: S3Server, **others: Any) -> Config:
    return Config(storage=server.settings, **others)


def score(server: S3Server, source: str, dest: str, pack: str, **how: Any) -> RunReport:
    return skinbatch.score(
        source, dest, pack=pack, engine="local", config=settings_of(server), max_failures=0.5, **how
    )


def test_a_bucket_gives_the_tables_of_the_same_folder(
    s3: S3Server, fake_pack: str, tmp_path: Path
) -> None:
    bucket = s3.bucket()
    put_all(s3, bucket, FILES, "photos/")
    source, dest = f"s3://{bucket}/photos", f"s3://{bucket}/scored/here"
    report = score(s3, source, dest, fake_pack)
    assert (report.exit_code, report.rows, dict(report.statuses)) == (
        0,
        22,
        {"ok": 20, "empty": 1, "unsupported": 1},
    )
    assert report.skipped == {".txt": 1}
    how = {"storage": s3.settings}
    assert skinbatch.verify(dest, **how).differences == []  # type: ignore[arg-type]
    assert score(s3, source, dest, fake_pack).nothing_to_do

    write_tree(tmp_path / "photos", FILES)
    skinbatch.score(
        tmp_path / "photos", tmp_path / "out", pack=fake_pack, engine="local", max_failures=0.5
    )
    where = ["uri", "version", "error"]
    there, here = comparable(dest, **how), comparable(tmp_path / "out")
    assert there[0].drop_columns(where).equals(here[0].drop_columns(where))
    assert there[1].equals(here[1])

    put_all(
        s3,
        bucket,
        {"photos/loose/00.jpg": jpeg(face(7, 7)), "photos/loose/new.jpg": jpeg(face(6, 0))},
    )
    s3.client.delete_object(Bucket=bucket, Key="photos/loose/01.jpg")
    again = score(s3, source, dest, fake_pack)
    assert (again.exit_code, again.scored, again.rows) == (0, 2, 22)
    found = counts(dest, **how)
    assert (found["loose/00.jpg"], found["loose/new.jpg"]) == ((14, 7, 7), (6, 6, 0))
    assert "loose/01.jpg" not in found
    assert skinbatch.verify(dest, **how).differences == []  # type: ignore[arg-type]


def test_a_listing_names_photos_and_shards_of_several_buckets(
    s3: S3Server, fake_pack: str, tmp_path: Path
) -> None:
    one, two = s3.bucket(), s3.bucket()
    put_all(s3, one, FILES)
    put_all(s3, two, {"x.png": png(face(3, 3))})
    uris = [
        f"s3://{one}/loose/03.jpg",
        f"s3://{one}/shards/b.tar",
        f"s3://{two}/x.png",
        f"s3://{two}/gone.png",
    ]
    listing = io.BytesIO()
    pq.write_table(pa.table({"uri": uris, "patient": ["p3", None, "px", "pg"]}), listing)
    s3.client.put_object(Bucket=two, Key="lists/photos.parquet", Body=listing.getvalue())
    report = score(s3, f"s3://{two}/lists/photos.parquet", str(tmp_path / "out"), fake_pack)
    assert (report.exit_code, report.rows, report.vanished) == (0, 5, 1)
    assert counts(tmp_path / "out") == {
        uris[0]: (3, 3, 0),
        **{f"{uris[1]}/{n}.png": (n, 0, n) for n in range(3)},
        uris[2]: (6, 3, 3),
    }
    found = rows(tmp_path / "out")
    assert (found[uris[0]]["meta_patient"], found[uris[2]]["meta_patient"]) == ("p3", "px")
    assert skinbatch.verify(tmp_path / "out").differences == []


def test_a_listing_that_names_a_bucket_that_is_not_there_stops_with_a_message(
    s3: S3Server, fake_pack: str, tmp_path: Path
) -> None:
    write_tree(tmp_path, {"list.csv": b"uri\ns3://no-such-bucket-anywhere/a.jpg\n"})
    with pytest.raises(UsageError, match="no such bucket"):
        score(s3, str(tmp_path / "list.csv"), str(tmp_path / "out"), fake_pack)


def test_an_anonymous_reader_sends_no_signature_and_the_destination_is_signed(
    s3: S3Server, fake_pack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    s3.client.put_object(Bucket=bucket, Key="photos/a.png", Body=png(face(1, 1)), ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Another timeout makes a new client; the old one has already found credentials.
    storage = {"endpoint_url": s3.settings.endpoint_url, "anonymous": True, "timeout_s": 59.0}
    config = parse_config({"storage": storage})
    report = skinbatch.score(
        f"s3://{bucket}/photos", tmp_path / "out", pack=fake_pack, engine="local", config=config
    )
    assert (report.exit_code, counts(tmp_path / "out")) == (0, {"a.png": (2, 1, 1)})
    with pytest.raises(UsageError, match="no usable credentials"):
        skinbatch.score(
            f"s3://{bucket}/photos",
            f"s3://{bucket}/out",
            pack=fake_pack,
            engine="local",
            config=config,
        )


@pytest.mark.parametrize(
    ("source", "dest", "says"),
    [
        ("s3://nowhere-at-all/photos", "s3://{bucket}/out", "no such bucket"),
        ("s3://{bucket}/photos", "s3://nowhere-at-all/out", "no such bucket"),
        ("s3://{bucket}/nothing", "s3://{bucket}/out", "does not exist"),
        ("s3://{bucket}/texts", "s3://{bucket}/out", "no photos found"),
        ("s3://{bucket}/photos", "s3://{bucket}/photos/out", "overlap"),
        ("s3://{bucket}", "s3://{bucket}/out", "overlap"),
        ("s3:///photos", "s3://{bucket}/out", "names no bucket"),
    ],
)
def test_wrong_buckets_are_one_message_and_nothing_is_written(
    source: str, dest: str, says: str, s3: S3Server, fake_pack: str
) -> None:
    bucket = s3.bucket()
    put_all(s3, bucket, {"photos/a.png": png(face()), "texts/a.txt": b"text"})
    with pytest.raises(UsageError, match=says):
        score(s3, source.format(bucket=bucket), dest.format(bucket=bucket), fake_pack)
    keys = [o["Key"] for o in s3.client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == ["photos/a.png", "texts/a.txt"]


class StartsLate(LocalEngine):
    """Stop between the plan and the first unit, for as long as `meanwhile` takes."""

    def __init__(self, settings: EngineSettings, meanwhile: Callable[[], None]) -> None:
        super().__init__(settings)
        self.meanwhile = meanwhile

    def start(self, context: ScoringContext) -> LocalPool:
        self.meanwhile()
        return super().start(context)


def test_photos_that_change_or_go_while_the_run_works_are_scored_as_they_are_read(
    s3: S3Server, fake_pack: str
) -> None:
    bucket = s3.bucket()
    put_all(s3, bucket, FILES, "photos/")
    source, dest = f"s3://{bucket}/photos", f"s3://{bucket}/out"

    def meanwhile() -> None:
        put_all(
            s3,
            bucket,
            {"photos/loose/04.jpg": jpeg(face(7, 6)), "photos/shards/b.tar": FILES["shards/a.tar"]},
        )
        for key in ("loose/05.jpg", "shards/a.tar"):
            s3.client.delete_object(Bucket=bucket, Key=f"photos/{key}")

    config = settings_of(s3, pack=fake_pack)
    run = Run(prepare(source, dest, config), SilentPresenter(), "test")
    report = drive(run, StartsLate(config.engine, meanwhile))
    how = {"storage": s3.settings}
    assert (report.units_left, report.vanished, report.rows) == (0, 1, 11 + 2 + 5)
    found = counts(dest, **how)
    assert found["loose/04.jpg"] == (13, 7, 6)
    assert "loose/05.jpg" not in found
    assert {i: c for i, c in found.items() if "shards" in i} == {
        f"shards/b.tar/{n}.png": (n + 1, n, 1) for n in range(5)
    }
    assert skinbatch.verify(dest, **how).differences == []  # type: ignore[arg-type]
    assert score(s3, source, dest, fake_pack).nothing_to_do


@pytest.mark.slow
def test_a_killed_run_on_a_real_server_is_resumed(
    ceph: S3Server, fake_pack: str, tmp_path: Path
) -> None:
    bucket = ceph.bucket()
    try:
        files = {f"{n:03}.png": png(face(n % 6, n % 4, n)) for n in range(90)}
        put_all(
            ceph,
            bucket,
            files | {k: v for k, v in FILES.items() if k.startswith("shards")},
            "photos/",
        )
        source, dest = f"s3://{bucket}/photos", f"s3://{bucket}/scored"
        settings = tmp_path / "s3.toml"
        settings.write_text(
            f'[storage]\nendpoint_url = "{ceph.settings.endpoint_url}"\n[engine]\nbatch_size = 1\n[decode]\nthreads = 1\n'
        )
        command = [sys.executable, "-m", "skinbatch", "score", source, dest, "--engine", "local"]
        run = subprocess.Popen(
            [*command, "--pack", fake_pack, "--config", str(settings)], stderr=subprocess.DEVNULL
        )
        found = ceph.client.get_paginator("list_objects_v2")
        receipts = {"Bucket": bucket, "Prefix": "scored/_skinbatch/receipts/"}
        while sum(page.get("KeyCount", 0) for page in found.paginate(**receipts)) < 2:
            assert run.poll() is None
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert skinbatch.verify(dest, storage=ceph.settings).exit_code == 5
        report = score(ceph, source, dest, fake_pack)
        assert (report.exit_code, report.rows) == (0, 98)
        assert 0 < report.scored < 98
        assert skinbatch.verify(dest, storage=ceph.settings).differences == []
        expected = {f"{n:03}.png": (n % 6 + n % 4, n % 6, n % 4) for n in range(90)}
        expected |= {f"shards/a.tar/{n}.png": (n + 1, n, 1) for n in range(5)}
        expected |= {f"shards/b.tar/{n}.png": (n, 0, n) for n in range(3)}
        assert counts(dest, storage=ceph.settings) == expected
        assert score(ceph, source, dest, fake_pack).nothing_to_do
    finally:
        for page in ceph.client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in page.get("Contents", ()):
                ceph.client.delete_object(Bucket=bucket, Key=item["Key"])
        ceph.client.delete_bucket(Bucket=bucket)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "ceph"])
def test_ray_reads_shards_from_a_bucket_and_writes_tables_to_it(
    kind: str, request: pytest.FixtureRequest, fake_pack: str
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    bucket = server.bucket()
    put_all(server, bucket, FILES, "photos/")
    source, local, ray = (f"s3://{bucket}/{name}" for name in ("photos", "local", "ray"))
    expected = score(server, source, local, fake_pack)
    how = {"engine": "ray", "workers": 2, "config": settings_of(server), "max_failures": 0.5}
    report = skinbatch.score(source, ray, pack=fake_pack, **how)  # type: ignore[arg-type]
    assert (report.exit_code, report.rows, report.statuses) == (0, expected.rows, expected.statuses)
    assert skinbatch.verify(ray, storage=server.settings).differences == []
    assert comparable(ray, storage=server.settings) == comparable(local, storage=server.settings)
    assert skinbatch.score(source, ray, pack=fake_pack, **how).nothing_to_do  # type: ignore[arg-type]
