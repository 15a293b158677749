"""Test photos under the names that cameras, phones and browsers give them, and the names of skipped files."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import skinbatch
from skinbatch.archive.source import open_source
from skinbatch.config import Config
from skinbatch.types import ImageRef
from tests.faces import face, jpeg, png, rows, tar_bytes, write_tree

# 64 x 48: skin colour, its top left quarter blue. No free encoder is at hand when tests run.
HEIF = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAAAERA"
    "AAEAAQAAAAABoQABAAAAAAAAADUAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAAAADdaXBjbwAA"
    "AHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq"
    "5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAA"
    "MAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAD1tZGF0AAAAMSgBr1j5Et3/457kbVH+"
    "pdLxzDULaFG/Xk1yPramU7H1q3q6Df74FN9qfaETJQ09xPo="
)


def several(form: str, **options: Any) -> bytes:
    """Return one file with two pictures, the first of which is the photo."""
    out = io.BytesIO()
    first, second = (Image.fromarray(np.asarray(face(n))) for n in (3, 6))
    first.save(out, form, save_all=True, append_images=[second], **options)
    return out.getvalue()


def test_a_photo_is_scored_under_every_name_of_its_format(tmp_path: Path, fake_pack: str) -> None:
    jpegs = {
        f"a.{ending}": jpeg(face(3)) for ending in ("jpe", "jif", "JFIF", "jfi", "pjpeg", "pjp")
    }
    files = {
        **jpegs,
        "b.MPO": several("MPO", quality=95),
        "c.avifs": several("AVIF", quality=95),
        "d.apng": several("PNG"),
        "e.HIF": HEIF,
        "f.tar": tar_bytes({"g.mpo": several("MPO", quality=95), "h.hif": HEIF}),
    }
    report = skinbatch.score(
        write_tree(tmp_path / "in", files), tmp_path / "out", pack=fake_pack, engine="local"
    )
    found = rows(tmp_path / "out")
    assert report.skipped == {}
    assert {name: row["status"] for name, row in found.items()} == dict.fromkeys(
        [*(name for name in files if name != "f.tar"), "f.tar/g.mpo", "f.tar/h.hif"], "ok"
    )
    assert {row["count_total"] for name, row in found.items() if "hif" not in name.lower()} == {3}


def test_what_is_skipped_is_named_by_what_it_is(tmp_path: Path, fake_pack: str) -> None:
    source = write_tree(
        tmp_path / "in",
        {"a.png": png(face()), "b.cr2": b"raw", ".DS_Store": b"x", "notes": b"text"},
    )
    pq.write_table(pa.table({"label": [1]}), source / "labels.parquet")
    (source / "cut.parquet").write_bytes(b"PAR1" + bytes(100))
    (source / "out.jpg").symlink_to("/etc/hostname")
    (source / "lost.jpg").symlink_to("nowhere")
    report = skinbatch.score(source, tmp_path / "out", pack=fake_pack, engine="local")
    assert report.skipped == {
        ".cr2": 1,
        ".DS_Store": 1,
        "(no extension)": 1,
        "(Parquet without photos)": 1,
        "(link out of the source: see --follow-links)": 1,
        "(link to no file)": 1,
    }
    # An unreadable Parquet file is not a file without photos: its row gives the reason.
    assert report.statuses == {"ok": 1, "truncated": 1}


def test_a_photo_that_a_listing_names_is_scored_wherever_it_lies(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {".git/annex/a.jpg": jpeg(face()), "@eaDir/b.jpg": jpeg(face()), "._c.jpg": b"\0\5\x16\7"},
    )
    (tmp_path / "list.csv").write_text("uri\n.git/annex/a.jpg\n@eaDir/b.jpg\n._c.jpg\n")
    source = open_source(str(tmp_path / "list.csv"), Config())
    ids = [entry.image_id for entry in source.entries() if isinstance(entry, ImageRef)]
    assert (ids, source.skipped) == ([".git/annex/a.jpg", "@eaDir/b.jpg"], {"._*": 1})
