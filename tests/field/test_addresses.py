"""Test sources and destinations as people write them: with slips, in other storage, and with bytes
that are not UTF-8."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import skinbatch
from skinbatch.config import Config
from skinbatch.errors import UsageError
from tests.conftest import S3Server
from tests.faces import face, jpeg, rows, tar_bytes, write_tree
from tests.faults.proxy import Proxy, refusal

SLIPS = [
    ("s3:/typo/out", "did you mean s3://typo/out"),
    ("s3:typo/out", "did you mean s3://typo/out"),
    ("S3://typo/out", "did you mean s3://typo/out"),
    ("s3a://typo/out", "did you mean s3://typo/out"),
    ("s3:\\\\typo\\out", "did you mean s3://typo/out"),
    ("gs://typo/out", "s3://typo/out with [storage] endpoint_url"),
    ("gs:/typo/out", "s3://typo/out with [storage] endpoint_url"),
    ("https://typo.s3.eu-west-1.amazonaws.com/out", "write s3://typo/out"),
    ("https://s3.amazonaws.com/typo/out", "write s3://typo/out"),
    ("http://example.org/out", "http:// is not supported"),
    ("http:/example.org/out", "http:// is not supported"),
    ("file:///data/out", "write only the path: /data/out"),
    ("file:/data/out", "write only the path: /data/out"),
    ("FILE://localhost/data/out", "write only the path: /data/out"),
    ("hdfs://cluster/out", "hdfs:// is not supported"),
    ("C:\\Users\\me\\out", "/mnt/c/Users/me/out"),
    ("C:/Users/me/out", "/mnt/c/Users/me/out"),
]


@pytest.mark.parametrize(("address", "meant"), SLIPS)
def test_an_address_with_a_slip_is_refused_with_what_was_meant_and_no_folder_is_made(
    tmp_path: Path, fake_pack: str, address: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path / "photos", {"a.jpg": jpeg(face())})
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    for source, dest in (("photos", address), (address, "out")):
        with pytest.raises(UsageError) as raised:
            skinbatch.score(source, dest, pack=fake_pack, engine="local")
        assert address in str(raised.value) and meant in str(raised.value)
        assert raised.value.exit_code == 2
    with pytest.raises(UsageError) as raised:
        skinbatch.open(address)
    assert meant in str(raised.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_whose_name_looks_like_an_address_can_still_be_named(
    tmp_path: Path, fake_pack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path / "s3:" / "photos: 2024", {"a:b.jpg": jpeg(face())})
    monkeypatch.chdir(tmp_path)
    report = skinbatch.score("./s3:/photos: 2024", "out", pack=fake_pack, engine="local")
    assert report.statuses == {"ok": 1}
    assert list(rows("out")) == ["a:b.jpg"]


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_source_and_destination_may_have_bytes_that_are_not_utf8(
    tmp_path: Path, fake_pack: str, engine: str
) -> None:
    base = os.fsencode(tmp_path) + b"/caf\xe9"
    photos, dest = os.fsdecode(base + b"/photos \xff"), os.fsdecode(base + b"/out \xfc")
    write_tree(Path(photos), {"a.jpg": jpeg(face(1)), "t.tar": tar_bytes({"b.jpg": jpeg(face(2))})})
    Path(os.fsdecode(os.fsencode(photos) + b"/m\xfc.jpg")).write_bytes(jpeg(face(3)))
    Path(os.fsdecode(os.fsencode(photos) + b"/l\xfc.csv")).write_text("uri\na.jpg\n")

    def run(source: str, out: str) -> dict[str, object]:
        command = [
            sys.executable,
            "-m",
            "skinbatch",
            "score",
            source,
            out,
            "--pack",
            fake_pack,
            "--engine",
            engine,
        ]
        done = subprocess.run(command, capture_output=True, timeout=300)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr[-3000:]
        return {"nothing": b"Nothing to do" in done.stdout}

    run(photos, dest)
    assert {row["status"] for row in rows(dest).values()} == {"ok"}
    assert len(rows(dest)) == 3
    assert run(photos, dest) == {"nothing": True}
    assert skinbatch.verify(dest).differences == []
    assert sorted(os.listdir(base)) == sorted([b"photos \xff", b"out \xfc"])

    # The printed path can be pasted: the text in tables and records names the same folder.
    printed = skinbatch.open(dest).store.uri
    printed.encode("utf-8")
    assert skinbatch.verify(printed).differences == []
    if engine == "local":
        assert skinbatch.retry(dest, engine="local").nothing_to_do
        for name, image_id in (
            (b"m\xfc.jpg", "m\uf7fc.jpg"),
            (b"l\xfc.csv", "a.jpg"),
            (b"t.tar", "t.tar/b.jpg"),
        ):
            alone = os.fsdecode(os.fsencode(dest) + b"-" + name)
            source = os.fsdecode(os.fsencode(photos) + b"/" + name)
            assert skinbatch.score(source, alone, pack=fake_pack, engine="local").exit_code == 0
            assert list(rows(alone)) == [image_id]


def test_a_store_without_batches_of_deletes_is_asked_for_one_after_the_other(
    tmp_path: Path, s3: S3Server, fake_pack: str
) -> None:
    bucket = s3.bucket()
    proxy = Proxy(s3.settings.endpoint_url or "", share=0.0)
    proxy.refuse = lambda method, path: (
        refusal(501, "NotImplemented") if method == "POST" and "delete" in path else None
    )
    config = Config(storage=s3.settings.model_copy(update={"endpoint_url": proxy.url}))
    source = write_tree(
        tmp_path / "photos", {f"{n}.jpg": jpeg(face(n % 5, shade=n)) for n in range(5)}
    )
    dest = f"s3://{bucket}/out"
    report = skinbatch.score(source, dest, pack=fake_pack, engine="local", config=config)
    assert (report.exit_code, report.statuses) == (0, {"ok": 5})

    # A change replaces older tables, which are then deleted.
    (source / "1.jpg").write_bytes(jpeg(face(5, 5)))
    report = skinbatch.score(source, dest, pack=fake_pack, engine="local", config=config)
    assert report.exit_code == 0
    keys = [item["Key"] for item in s3.client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert [key for key in keys if "probe" in key] == []
    assert skinbatch.verify(dest, storage=config.storage).differences == []
    assert len([key for key in keys if key.startswith("out/images/")]) == 1
    proxy.close()


def test_a_destination_that_cannot_be_read_back_is_left_without_a_probe(
    s3: S3Server, tmp_path: Path
) -> None:
    from skinbatch.storage.s3 import S3Store

    bucket = s3.bucket()
    proxy = Proxy(s3.settings.endpoint_url or "", share=0.0)
    proxy.refuse = lambda method, path: (
        refusal(403, "AccessDenied") if method == "GET" and "probe" in path else None
    )
    store = S3Store(bucket, "out", s3.settings.model_copy(update={"endpoint_url": proxy.url}))
    with pytest.raises(UsageError, match="cannot be written to"):
        store.probe_writable()
    assert "Contents" not in s3.client.list_objects_v2(Bucket=bucket)
    proxy.close()
