"""Test that credentials, presigned addresses and EXIF reach nothing that a run writes or prints."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import timeit
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image, TiffImagePlugin

from skinbatch.errors import StoreError, UsageError
from skinbatch.redact import is_signed, redacted, unsigned
from tests.conftest import SMALL, S3Server
from tests.faces import face, png, rows, tar_bytes, write_tree

SIGNATURE = "8f3c1d6e0b7a49525c9e8d7f6a5b4c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b"
TOKEN = "FwoGZXIvYXdzEJr-very-long-session-token"
QUERY = (
    f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAFINDME%2F2026&X-Amz-Security-Token={TOKEN}"
    f"&X-Amz-Signature={SIGNATURE}"
)
OWNER, SERIAL, PLACE = "Find-Me Owner", "SERIAL-FIND-ME-123", "Find-Me-Street-7"
EXIF = (OWNER, SERIAL, PLACE, "51/1", "0/1 30/1")
PRIVATE = (SIGNATURE, TOKEN, "AKIAFINDME", *EXIF)


def with_exif(size: tuple[int, int] = (96, 96)) -> bytes:
    """Return a photo whose EXIF names its owner, camera and place."""
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x8298] = PLACE, OWNER, OWNER
    exif.get_ifd(0x8769).update(
        {0xA430: OWNER, 0xA431: SERIAL, 0x9286: b"ASCII\0\0\0" + PLACE.encode()}
    )
    rational = TiffImagePlugin.IFDRational
    exif.get_ifd(0x8825).update({1: "N", 2: (rational(51), rational(0), rational(30)), 0x1D: PLACE})
    out = io.BytesIO()
    Image.fromarray(face(2, 1)).resize(size).save(
        out, "JPEG", exif=exif, comment=PLACE.encode(), quality=95
    )
    return out.getvalue()


def photos() -> dict[str, bytes]:
    """Return sound photos, and photos that give errors: cut within EXIF, damaged behind it, too
    large, no photo at all."""
    whole = with_exif()
    assert all(part.encode() in whole for part in (OWNER, SERIAL, PLACE))
    within = whole.index(OWNER.encode()) + 4
    return {
        "whole.jpg": whole,
        "cut-in-exif.jpg": whole[:within],
        "cut.jpg": whole[:-200],
        "damaged.jpg": whole[:4] + b"\xff\xff" + whole[6:],
        "exif-alone.jpg": whole[whole.index(b"Exif") :],
        "exif.tiff": whole[whole.index(b"Exif") + 6 :],
        "large.jpg": with_exif((400, 400)),
        "shard.tar": tar_bytes({"a.jpg": whole, "b.jpg": whole[:within], "c.jpg": whole[:-200]}),
    }


def everything(dest: Path) -> Iterator[tuple[str, str]]:
    """Return all that is in a destination as text: names, files, and every cell and all metadata of tables."""
    for path in sorted(p for p in dest.rglob("*") if p.is_file()):
        name = str(path.relative_to(dest))
        yield name, name
        yield name, path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield name, json.dumps(table.to_pydict(), default=str, ensure_ascii=False)
            yield name, str(table.schema.metadata)


def downloaded(server: S3Server, bucket: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Download a bucket into a folder, with the metadata of its objects."""
    for item in server.client.list_objects_v2(Bucket=bucket)["Contents"]:
        path = folder / item["Key"]
        path.parent.mkdir(parents=True, exist_ok=True)
        answer = server.client.get_object(Bucket=bucket, Key=item["Key"])
        path.write_bytes(answer["Body"].read())
        yield item["Key"], json.dumps({name: answer[name] for name in ("Metadata", "ContentType")})


def leaks(texts: Iterator[tuple[str, str]], secrets: tuple[str, ...]) -> set[tuple[str, str]]:
    return {(name, secret) for name, text in texts for secret in secrets if secret in text}


def command(
    *arguments: object, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "skinbatch", *map(str, arguments)],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
    )


def said(done: subprocess.CompletedProcess[str]) -> Iterator[tuple[str, str]]:
    yield "stdout", done.stdout
    yield "stderr", done.stderr


def test_what_a_photo_says_of_its_owner_stays_in_the_photo(
    tmp_path: Path, mortal_pack: str
) -> None:
    tree = write_tree(tmp_path / "photos", photos())
    settings = tmp_path / "settings.toml"
    settings.write_text(
        "[decode]\nmax_pixels = 100_000\n[run]\nmax_failures = 1.0\nlog_format = 'json'\n"
    )
    out = tmp_path / "out"
    done = command(
        "score",
        tree,
        out,
        "--pack",
        mortal_pack,
        "--engine",
        "local",
        "--config",
        settings,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    found = {image_id: row["status"] for image_id, row in rows(out).items()}
    assert found["whole.jpg"] == "ok"
    assert set(found.values()) >= {"ok", "truncated", "unsupported", "too_large"}
    assert leaks(everything(out), EXIF) == set()
    assert leaks(said(done), EXIF) == set()


@pytest.mark.parametrize("where", ["a folder", "a bucket"])
def test_a_listing_of_presigned_addresses_leaves_no_signature_behind(
    where: str, tmp_path: Path, fake_pack: str, s3: S3Server
) -> None:
    bucket, scored = s3.bucket(), s3.bucket()
    for name in ("a.png", "b.png", "broken.png"):
        s3.client.put_object(
            Bucket=bucket, Key=name, Body=png(face(1, 2)) if name != "broken.png" else b"\x89PNG"
        )
    listed = [
        f"s3://{bucket}/{name}?{QUERY},https://h/{name}?{QUERY}"
        for name in ("a.png", "b.png", "broken.png", "gone.png")
    ]
    listing = tmp_path / "listing.csv"
    listing.write_text("\n".join(["uri,download", *listed]) + "\n")
    settings = tmp_path / "settings.toml"
    settings.write_text(
        f"[storage]\nendpoint_url = '{s3.settings.endpoint_url}'\n[run]\nmax_failures = 1.0\n"
    )
    out = tmp_path / "out"
    dest = out if where == "a folder" else f"s3://{scored}/out"
    secret = {
        "AWS_SECRET_ACCESS_KEY": "find-me-secret-key",
        "AWS_SESSION_TOKEN": "find-me-session-token",
    }
    done = command(
        "score",
        listing,
        dest,
        "--pack",
        fake_pack,
        "--engine",
        "local",
        "--config",
        settings,
        env=secret,
    )
    assert done.returncode == 0, done.stderr
    found = rows(dest, storage=s3.settings)
    assert found.keys() == {f"s3://{bucket}/{name}" for name in ("a.png", "b.png", "broken.png")}
    assert {row["meta_download"].partition("?")[0] for row in found.values()} == {
        f"https://h/{name}" for name in ("a.png", "b.png", "broken.png")
    }
    private = (*PRIVATE, *secret.values())
    if where == "a bucket":
        assert leaks(downloaded(s3, scored, out), private) == set()
        assert {"images", "boxes", "_skinbatch"} <= {path.name for path in (out / "out").iterdir()}
    assert leaks(everything(out), private) == set()
    assert leaks(said(done), private) == set()


@pytest.mark.parametrize(
    ("source", "dest"),
    [
        (f"https://bucket.s3.amazonaws.com/photos.tar?{QUERY}", "out"),
        (f"s3://bucket/photos?{QUERY}", "out"),
        (f"s3://AKIAFINDME:{TOKEN}@bucket/photos", "out"),
        ("photos", f"s3://bucket/out?{QUERY}"),
    ],
)
def test_an_address_that_carries_credentials_is_refused_without_saying_them(
    source: str, dest: str, tmp_path: Path, fake_pack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "photos", {"a.png": png(face())})
    before = sorted(tmp_path.rglob("*"))
    done = command("score", source, dest, "--pack", fake_pack, "--engine", "local")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert leaks(said(done), PRIVATE) == set()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_defect_tells_its_story_without_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from skinbatch.cli.main import _guarded

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "find-me-secret-key")

    def broken(**_: object) -> None:
        raise RuntimeError(f"signed https://h/a?{QUERY} with find-me-secret-key") from ValueError(
            f"http://user:{TOKEN}@host/"
        )

    assert _guarded(broken) == 1
    told = capsys.readouterr().err
    assert "RuntimeError: signed https://h/a?" in told
    assert [
        secret
        for secret in (SIGNATURE, "AKIAFINDME", "find-me-secret-key", f"user:{TOKEN}@host/")
        if secret in told
    ] == []


def test_every_error_of_the_house_is_redacted_where_it_is_made() -> None:
    for kind in (UsageError, StoreError):
        told = str(
            kind(f"s3://b/k?{QUERY}: no; see https://user:{TOKEN}@host/x?sig={SIGNATURE}&page=2")
        )
        assert SIGNATURE not in told and TOKEN not in told
        assert told.endswith("&page=2")


SPELLINGS = [
    f"https://h/a?x=1&amp;X-Amz-Signature={SIGNATURE}",
    f"https://h/a?next=https%3A%2F%2Fh%2Fb%3Fx%3D1%26X-Amz-Signature%3D{SIGNATURE}",
    f"https://h/a?x=https%253A%252F%252Fh%252Fb%253Fsig%253D{SIGNATURE}",
    f"https://h/a%3FX-Amz-Signature={SIGNATURE}",
    rf"https://h/a?x=1\u0026X-Amz-Signature={SIGNATURE}",
    rf"https://h/a?x=1\u0026sig\u003d{SIGNATURE}",
    f"https://h/a?x=1;X-Amz-Signature={SIGNATURE}",
    f"https://h/a#access_token={SIGNATURE}",
    f"https://h/a?x-goog-signature={SIGNATURE}",
    f"https://h.blob.core.windows.net/a?se=2026&sp=r&sig={SIGNATURE}",
    f"Authorization: AWS4-HMAC-SHA256 Credential=AKIA/2026, SignedHeaders=host;x-amz-date, Signature={SIGNATURE}",
    f"X-Amz-Security-Token={SIGNATURE}",
    f"X-Amz-Security-Token: {SIGNATURE}",
    f"{{'X-Amz-Security-Token': b'{SIGNATURE}'}}",
    f'{{"X-Amz-Security-Token": "{SIGNATURE}"}}',
    f'{{\\"X-Amz-Security-Token\\": \\"{SIGNATURE}\\"}}',
    f'{{\\\\"aws_secret_access_key\\\\":\\\\"{SIGNATURE}\\\\"}}',
    f"aws_secret_access_key={SIGNATURE}",
    f"https://user:pa/ss{SIGNATURE}@host/x",
    f"https://user:p@ss{SIGNATURE}@host/x",
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_however_a_signature_or_a_password_is_spelt_it_is_not_said(text: str) -> None:
    for written in (text, text.upper()):
        assert SIGNATURE.lower() not in redacted(f"cannot read {written} (3 times)").lower()
    assert redacted(f"{text} (3 times)").endswith((" (3 times)", "@host/x (3 times)"))
    assert redacted(redacted(text)) == redacted(text)


def test_a_token_with_a_line_break_behind_it_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a secret as `echo` writes it; the client's message shows it as a Python literal."""
    given = f"{TOKEN}\n"
    monkeypatch.setenv("AWS_SESSION_TOKEN", given)
    assert TOKEN not in redacted(f"Invalid header value {given.encode()!r}")


def test_an_address_within_an_address_keeps_what_is_no_signature() -> None:
    said = redacted(f"https://h/?next=https%3A%2F%2Fh%2Fb%3Fsig%3D{SIGNATURE}%26page%3D2&page=3")
    assert said == "https://h/?next=https%3A%2F%2Fh%2Fb%3Fsig%3D…%26page%3D2&page=3"
    assert (
        redacted(f"https://h/a?X-Amz-Signature={SIGNATURE}&page=2")
        == "https://h/a?X-Amz-Signature=…&page=2"
    )


@pytest.mark.parametrize(
    "address", ["s3://b/a.jpg?x=1&amp;{}", "s3://b/a.jpg%3Fx=1%26{}", "s3://b/a.jpg?{}"]
)
def test_a_signed_address_is_known_by_any_spelling(address: str) -> None:
    assert unsigned(address.format(f"X-Amz-Signature={SIGNATURE}")) == "s3://b/a.jpg"


NEARLY = [
    *(
        "?x-amz-",
        "x-amz-signature",
        "signature=0",
        "signature ",
        "&sig",
        "?x-amz-date",
        "x-amz-credential: ",
    ),
    *(
        "://u:",
        "://u:x",
        "://",
        "https://h:80/p@2",
        "%25",
        "%2526",
        "&sig=%25",
        "\\u0026sig",
        "&amp;",
        "-",
        "a",
    ),
]


@pytest.mark.parametrize("nearly", NEARLY)
def test_a_megabyte_of_what_is_nearly_a_signature_costs_time_in_proportion(nearly: str) -> None:
    def seconds(size: int) -> float:
        text = "://x=signature " + nearly * (size // len(nearly))
        return min(timeit.repeat(lambda: redacted(text), number=1, repeat=3))

    assert seconds(1 << 20) < 200 * seconds(1 << 15)  # 32 times as long; a square would be 1,024


@pytest.mark.parametrize(
    "before", ["?token=", "?X-Amz-Signature=", "x-amz-credential: ", "Signature=", "https://u:"]
)
def test_what_a_long_value_costs_is_in_proportion_too(before: str) -> None:
    program = (
        "import resource, sys\n"
        "from skinbatch.redact import redacted\n"
        f"text = {before!r} + 'a' * (16 << 20)\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "redacted(text)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) * 1024)"
    )
    done = subprocess.run(
        [*SMALL, sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 8 * (16 << 20)


def test_what_is_no_signature_stays() -> None:
    for text in (
        *(
            "s3://b/a?b=c.jpg",
            "token=5.jpg",
            "a?page=2&size=3",
            "C++ == 3",
            "x@y.z",
            "s3://b/k@2x.jpg",
        ),
        *(
            "http://127.0.0.1:9000/b/k@2x.jpg",
            "http://[::1]:9000/b/k@2x.jpg",
            "a signature=5 and a policy: none",
        ),
        *(
            "https://h/a/b:c@2x.jpg",
            "design=4, sig = 3.5; expires: never",
            "100%26=3",
            "x-amz-date: 2026",
        ),
    ):
        assert redacted(text) == unsigned(text) == text
    for name in ("s3://b/a;sig=1.jpg", "s3://b/a#token=2.jpg", "s3://b/100%26sig%3D.jpg"):
        assert unsigned(name) == name and not is_signed(name)
    assert unsigned(f"s3://b/a.jpg?{QUERY}") == "s3://b/a.jpg"
