"""Score a mixed tree on the local engine, and check the rows and what the next runs do."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

import skinbatch
from skinbatch.config import parse_config
from skinbatch.errors import UsageError
from skinbatch.runs.run_report import RunReport
from tests.faces import (
    comparable,
    counts,
    encoded,
    face,
    files_of,
    jpeg,
    png,
    rows,
    tar_bytes,
    write_tree,
)

IMAGES = [
    *(
        "image_id string!",
        "uri string!",
        "sha256 string",
        "size int64",
        "version string",
        "status string!",
    ),
    *("error string", "width int32", "height int32", "face bool", "faces int16", "view string"),
    *("skin_fraction float", "crop_x1 int32", "crop_y1 int32", "crop_x2 int32", "crop_y2 int32"),
    *("sharpness float", "brightness float", "ita_degrees float"),
    *(
        "count_total int32",
        "count_left int32",
        "count_right int32",
        "count_acne int32",
        "saturated bool",
    ),
    *("grade string", "grade_level int8", "grade_scheme string"),
    *(
        "prob_rosacea float",
        "prob_lupus_erythematosus float",
        "top_class string",
        "unit_id string!",
    ),
    *("meta string!", "meta_age string", "meta_label string", "meta_patient string"),
]
BOXES = [
    *(
        "image_id string!",
        "box_id int32!",
        "x1 float!",
        "y1 float!",
        "x2 float!",
        "y2 float!",
        "score float!",
    ),
    *("label string!", "skin_overlap float", "side string", "counted bool!"),
]


def fields(schema: pa.Schema) -> list[str]:
    return [f"{f.name} {f.type}{'' if f.nullable else '!'}" for f in schema]


def score(source: Path, dest: Path, pack: str, **settings: object) -> RunReport:
    return skinbatch.score(source, dest, pack=pack, engine="local", **settings)  # type: ignore[arg-type]


def bomb() -> bytes:
    """Return a complete PNG that claims to be 60,000 x 60,000."""
    data = png(face())
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return data[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + data[33:]


def damaged() -> bytes:
    data = bytearray(png(face(3, 3)))
    at = data.index(b"IDAT") + 40
    data[at : at + 20] = bytes(20)
    return bytes(data)


def parquet_bytes() -> bytes:
    photos = [
        {"bytes": png(face(1, 1, 40)), "path": "x.png"},
        {"bytes": jpeg(face(0, 3, 41)), "path": None},
    ]
    out = io.BytesIO()
    pq.write_table(pa.table({"image": photos, "label": ["rosacea", None]}), out)
    return out.getvalue()


def zip_bytes() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z.png", png(face(2, 2, 30)))
        archive.writestr("sub/y.jpg", jpeg(face(5, 0, 31)))
        archive.writestr("readme.md", "text")
    return out.getvalue()


def shard() -> dict[str, bytes]:
    return {
        "0001.png": png(face(1, 2, 20)),
        "0001.json": json.dumps({"patient": "p1", "age": 7}).encode(),
        "0002.jpg": jpeg(face(3, 0, 21)),
        "../escape.png": png(face(1, 1, 22)),
    }


OK = {
    "00000/00001.png": (5, 2, 3),
    "00000/00002.jpg": (1, 1, 0),
    "00001/deep/er/00003.webp": (0, 0, 0),
    "00001/mislabelled.jpg": (5, 4, 1),
    "bare": (2, 0, 2),
    "cut.tar/whole.png": (2, 1, 1),
    "faces.zip/sub/y.jpg": (5, 5, 0),
    "faces.zip/z.png": (4, 2, 2),
    "shards/a.tar/0001.png": (3, 1, 2),
    "shards/a.tar/0002.jpg": (3, 3, 0),
    "table.parquet/0": (2, 1, 1),
    "table.parquet/1": (3, 0, 3),
}
BAD = {
    "bad/bomb.png": "too_large",
    "bad/cut.jpg": "truncated",
    "bad/damaged.png": "corrupt",
    "bad/empty.jpg": "empty",
    "bad/text.jpg": "unsupported",
    "cut.tar/#truncated": "truncated",
    "shards/a.tar/../escape.png": "refused",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole = tar_bytes({"whole.png": png(face(1, 1, 50)), "lost.png": png(face(2, 2, 51))})
    return write_tree(
        tmp_path_factory.mktemp("mixed") / "photos",
        {
            "00000/00001.png": png(face(2, 3)),
            "00000/00002.jpg": jpeg(face(1, 0, 1)),
            "00001/deep/er/00003.webp": encoded(face(0, 0, 2), "WEBP", lossless=True),
            "00001/mislabelled.jpg": png(face(4, 1, 3)),
            "bare": jpeg(face(0, 2, 4)),
            "bad/empty.jpg": b"",
            "bad/cut.jpg": jpeg(face(3, 3))[:900],
            "bad/damaged.png": damaged(),
            "bad/text.jpg": b"this is no photo, whatever its name says",
            "bad/bomb.png": bomb(),
            "notes.txt": b"text",
            "00000/labels.xml": b"<xml/>",
            "shards/a.tar": tar_bytes(shard()),
            "cut.tar": whole[: whole.index(b"lost.png") + 700],
            "faces.zip": zip_bytes(),
            "table.parquet": parquet_bytes(),
        },
    )


@pytest.fixture(scope="module")
def scored(tree: Path, fake_pack: str) -> tuple[RunReport, Path]:
    dest = tree.parent / "out"
    return score(tree, dest, fake_pack, max_failures=0.5), dest


def test_every_photo_of_a_mixed_tree_has_its_row_and_nothing_else_has(
    scored: tuple[RunReport, Path],
) -> None:
    report, dest = scored
    found = rows(dest)
    assert {i: r["status"] for i, r in found.items()} == dict.fromkeys(OK, "ok") | BAD
    assert (report.exit_code, report.rows, report.scored, report.failed) == (0, 19, 19, 7)
    assert report.skipped == {".txt": 1, ".xml": 1, ".md": 1}


def test_planted_lesions_are_counted_on_the_side_where_they_are(
    scored: tuple[RunReport, Path],
) -> None:
    assert counts(scored[1]) == OK
    found = rows(scored[1])
    assert {r["view"] for r in found.values() if r["status"] == "ok"} == {"frontal"}
    assert (found["00000/00001.png"]["grade"], found["00000/00001.png"]["grade_level"]) == (
        "mild",
        0,
    )
    boxes = skinbatch.open(scored[1]).boxes().to_pylist()
    assert {i: sum(b["image_id"] == i and b["counted"] for b in boxes) for i in OK} == {
        i: c[0] for i, c in OK.items()
    }
    (left,) = [b for b in boxes if b["image_id"] == "00000/00002.jpg"]
    assert (left["side"], left["label"], left["box_id"]) == ("left", "acne", 0)
    assert (left["x1"] + left["x2"]) / 2 == pytest.approx(30, abs=1.5)
    assert (left["y1"] + left["y2"]) / 2 == pytest.approx(22, abs=1.5)


def test_rows_that_failed_say_why_and_hold_no_numbers(scored: tuple[RunReport, Path]) -> None:
    found = rows(scored[1])
    for image_id in BAD:
        row = found[image_id]
        assert image_id.partition("/#")[0] in row["error"]
        empty = (
            "face",
            "count_total",
            "count_acne",
            "grade",
            "prob_rosacea",
            "top_class",
            "crop_x1",
            "skin_fraction",
        )
        assert [row[name] for name in empty] == [None] * len(empty)
    assert "max_pixels" in found["bad/bomb.png"]["error"]
    assert all(found[i]["error"] is None for i in OK)


def test_sidecars_and_columns_of_archives_pass_through(scored: tuple[RunReport, Path]) -> None:
    found = rows(scored[1])
    of_shard = found["shards/a.tar/0001.png"]
    assert (of_shard["meta_patient"], of_shard["meta_age"], of_shard["meta_label"]) == (
        "p1",
        "7",
        None,
    )
    assert found["shards/a.tar/0002.jpg"]["meta_patient"] is None
    assert found["table.parquet/0"]["meta_label"] == "rosacea"


def test_the_columns_are_those_of_the_contract(scored: tuple[RunReport, Path]) -> None:
    results = skinbatch.open(scored[1])
    assert fields(results.images().schema) == IMAGES
    assert fields(results.boxes().schema) == BOXES
    assert [c for c in IMAGES if c.split()[0] in ("status", "uri")] == fields(
        results.images(columns=["uri", "status"]).schema
    )


def test_files_say_what_they_are_and_a_plain_glob_is_the_whole_truth(
    scored: tuple[RunReport, Path],
) -> None:
    report, dest = scored
    (one, *_) = sorted((dest / f"images/scoring={report.fingerprint}").iterdir())
    metadata = pq.read_schema(one).metadata
    assert metadata[b"skinbatch.fingerprint"].decode() == report.fingerprint
    assert metadata[b"skinbatch.pack"] == b"fake"
    assert {
        b"skinbatch.schema_version",
        b"skinbatch.pipeline_version",
        b"skinbatch.weights",
    } <= set(metadata)
    query = f"select count(*), count(distinct image_id) from read_parquet('{report.images}*.parquet', union_by_name=true)"
    assert duckdb.execute(query).fetchall() == [(19, 19)]


def test_verify_proves_it(scored: tuple[RunReport, Path]) -> None:
    checked = skinbatch.verify(scored[1])
    assert (checked.exit_code, checked.differences, checked.photos, checked.rows) == (0, [], 19, 19)
    assert checked.boxes == skinbatch.open(scored[1]).boxes().num_rows


def test_the_same_again_has_nothing_to_do_and_writes_nothing(
    tree: Path, scored: tuple[RunReport, Path], fake_pack: str
) -> None:
    before = files_of(scored[1])
    again = score(tree, scored[1], fake_pack, max_failures=0.5)
    assert (again.exit_code, again.nothing_to_do, again.scored, again.copied, again.rows) == (
        0,
        True,
        0,
        0,
        19,
    )
    assert files_of(scored[1]) == before


def test_more_failures_than_allowed_are_exit_3_and_all_rows_are_there(
    tree: Path, scored: tuple[RunReport, Path], fake_pack: str
) -> None:
    report = score(tree, scored[1], fake_pack)
    assert (report.exit_code, report.rows) == (3, 19)
    assert "7 of 19 photos failed" in report.message


def test_another_setting_is_another_scoring_and_leaves_the_first_alone(
    tree: Path, scored: tuple[RunReport, Path], fake_pack: str
) -> None:
    report, dest = scored
    before = files_of(dest)
    other = score(
        tree,
        dest,
        fake_pack,
        max_failures=0.5,
        config=parse_config({"model": {"score_floor": 0.25}}),
    )
    assert other.fingerprint != report.fingerprint
    assert (other.exit_code, other.scored, other.copied) == (0, 19, 0)
    after = files_of(dest)
    assert before.items() <= after.items()
    assert all(other.fingerprint in key for key in after.keys() - before.keys())
    for fingerprint in (report.fingerprint, other.fingerprint):
        assert skinbatch.verify(dest, fingerprint).exit_code == 0
        assert skinbatch.open(dest, fingerprint).images().num_rows == 19
    assert skinbatch.open(dest).fingerprint == other.fingerprint


def test_only_what_changed_is_decoded_and_the_tables_say_what_the_archive_holds(
    tmp_path: Path, fake_pack: str
) -> None:
    photos = {f"{n:02}.png": png(face(n % 5, n % 3, n)) for n in range(20)}
    first = {f"{n}.png": png(face(n, 1, 60 + n)) for n in range(4)}
    tree = write_tree(tmp_path / "photos", {**photos, "s.tar": tar_bytes(first)})
    dest = tmp_path / "out"
    begun = score(tree, dest, fake_pack)
    assert (begun.scored, begun.copied) == (24, 0)

    (tree / "03.png").unlink()
    (tree / "04.png").rename(tree / "renamed.png")
    write_tree(
        tree, {"05.png": png(face(6, 6, 5)), "new/21.png": png(face(7, 0, 21)), "new/22.jpg": b""}
    )
    second = {
        "3.png": first["3.png"],
        "new.png": png(face(4, 4, 70)),
        "1.png": first["1.png"],
        "0.png": first["0.png"],
    }
    write_tree(tree, {"s.tar": tar_bytes(second)})
    report = score(tree, dest, fake_pack, max_failures=0.5)
    # the changed, the renamed, two new ones, and one member
    assert (report.exit_code, report.scored, report.rows) == (0, 5, 25)
    expected = {f"{n:02}.png": (n % 5 + n % 3, n % 5, n % 3) for n in range(20) if n not in (3, 4)}
    expected |= {
        "05.png": (12, 6, 6),
        "renamed.png": (5, 4, 1),
        "new/21.png": (7, 7, 0),
        "s.tar/new.png": (8, 4, 4),
    }
    expected |= {f"s.tar/{n}.png": (n + 1, n, 1) for n in (0, 1, 3)}
    assert counts(dest) == expected
    assert rows(dest).keys() - expected.keys() == {"new/22.jpg"}
    assert skinbatch.verify(dest).differences == []

    fresh = tmp_path / "fresh"
    score(tree, fresh, fake_pack, max_failures=0.5)
    images, boxes = comparable(dest)
    assert images.equals(comparable(fresh)[0])
    assert boxes.equals(comparable(fresh)[1])


def test_a_shard_that_was_renamed_is_not_scored_again(tmp_path: Path, fake_pack: str) -> None:
    tree = write_tree(
        tmp_path / "photos",
        {"s.tar": tar_bytes({f"{n}.png": png(face(n, n, n)) for n in range(3)})},
    )
    score(tree, tmp_path / "out", fake_pack)
    (tree / "s.tar").rename(tree / "t.tar")
    report = score(tree, tmp_path / "out", fake_pack)
    assert (report.exit_code, report.scored, report.copied) == (0, 0, 3)
    assert counts(tmp_path / "out") == {f"t.tar/{n}.png": (2 * n, n, n) for n in range(3)}
    assert skinbatch.verify(tmp_path / "out").exit_code == 0


def test_retry_scores_again_only_what_failed(tmp_path: Path, fake_pack: str) -> None:
    large = png(np.kron(face(3, 1), np.ones((2, 2, 1), np.uint8)))
    tree = write_tree(
        tmp_path / "photos",
        {
            **{f"{n}.png": png(face(n, 0, n)) for n in range(3)},
            "large.png": large,
            "gone.jpg": b"",
            "s.tar": tar_bytes({"a.png": png(face(1, 0, 9)), "b.png": large}),
        },
    )
    dest = tmp_path / "out"
    tight = parse_config({"decode": {"max_pixels": 10_000}})
    report = score(tree, dest, fake_pack, config=tight)
    assert (report.exit_code, dict(report.statuses)) == (3, {"ok": 4, "too_large": 2, "empty": 1})
    again = skinbatch.retry(
        dest, pack=fake_pack, engine="local", config=parse_config({"run": {"max_failures": 0.2}})
    )
    assert (again.exit_code, again.scored, again.copied) == (0, 3, 4)
    assert dict(again.statuses) == {"ok": 6, "empty": 1}
    assert counts(dest)["large.png"] == counts(dest)["s.tar/b.png"] == (4, 3, 1)
    assert skinbatch.verify(dest).differences == []


def test_a_limit_stops_after_whole_units_and_the_same_command_goes_on(
    tmp_path: Path, fake_pack: str
) -> None:
    tree = write_tree(
        tmp_path / "photos", {f"{n:02}.png": png(face(n % 7, 0, n)) for n in range(40)}
    )
    dest = tmp_path / "out"
    stopped = score(tree, dest, fake_pack, limit=1)
    assert (stopped.exit_code, stopped.units - stopped.units_left) == (6, 1)
    assert 0 < stopped.rows == stopped.scored < 40
    assert skinbatch.open(dest).images().num_rows == stopped.rows
    unfinished = skinbatch.verify(dest)
    assert (unfinished.exit_code, unfinished.units_left) == (5, stopped.units_left)
    rest = score(tree, dest, fake_pack)
    assert (rest.exit_code, rest.scored, rest.rows) == (0, 40 - stopped.rows, 40)
    assert counts(dest) == {f"{n:02}.png": (n % 7, n % 7, 0) for n in range(40)}
    assert skinbatch.verify(dest).exit_code == 0


def test_masks_that_were_asked_for_decode_to_the_shape_of_the_photo(
    tmp_path: Path, fake_pack: str
) -> None:
    tree = write_tree(tmp_path / "photos", {"a.png": png(face(2, 2)), "b.jpg": b""})
    report = score(tree, tmp_path / "out", fake_pack, save_masks=True, max_failures=0.5)
    masks = {m["image_id"]: m for m in skinbatch.open(tmp_path / "out").masks().to_pylist()}
    assert masks.keys() == {"a.png", "b.jpg"}
    assert masks["b.jpg"]["rle_skin"] is None
    size = [masks["a.png"]["height"], masks["a.png"]["width"]]
    decoded = {
        name: coco.decode({"size": size, "counts": masks["a.png"][f"rle_{name}"].encode()})
        for name in ("background", "skin", "nose")
    }
    assert sum(decoded.values()).tolist() == np.ones((96, 96), int).tolist()
    assert decoded["nose"][48, 48] == decoded["skin"][48, 30] == decoded["background"][1, 1] == 1
    fraction = (decoded["skin"].sum() + decoded["nose"].sum()) / 96**2
    assert fraction == pytest.approx(rows(tmp_path / "out")["a.png"]["skin_fraction"], abs=1e-4)
    assert (report.exit_code, skinbatch.verify(tmp_path / "out").exit_code) == (0, 0)


@pytest.mark.parametrize(
    ("source", "dest", "settings", "says"),
    [
        ("nowhere", "out", {}, "nowhere"),
        ("texts", "out", {}, "no photos found (skipped: 1 .txt)"),
        ("photos", "photos/out", {}, "overlap"),
        ("photos/inner", "photos", {}, "overlap"),
        ("photos", "taken", {}, "holds the tables of"),
        ("photos", "a-file", {}, "cannot be written to"),
        ("photos", "out", {"pack": "no-such-pack"}, "no such pack"),
        ("photos", "out", {"config": "bad.toml"}, "unknown setting `model.colour`"),
        ("photos", "out", {"config": "fp16.toml"}, "precision"),
        ("photos", "out", {"workers": 3}, "has one worker, not 3"),
        ("ftp://host/photos", "out", {}, "local path or s3://"),
    ],
)
def test_wrong_use_is_one_message_and_touches_nothing(
    source: str,
    dest: str,
    settings: dict[str, str],
    says: str,
    tmp_path: Path,
    fake_pack: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tree(Path("photos"), {"a.png": png(face()), "inner/b.png": png(face(1))})
    write_tree(Path("texts"), {"a.txt": b"text"})
    write_tree(
        Path(),
        {
            "a-file": b"",
            "bad.toml": b"[model]\ncolour = 1\n",
            "fp16.toml": b"[model]\nprecision = 'fp16'\n",
            "taken/_skinbatch/dest.json": b'{"source": "/elsewhere", "bits": 0, "schema_version": 1, "layout_version": 1}',
        },
    )
    before = files_of(tmp_path)
    with pytest.raises(UsageError) as raised:
        skinbatch.score(source, dest, **{"pack": fake_pack, "engine": "local"} | settings)  # type: ignore[arg-type]
    assert says in str(raised.value)
    assert raised.value.exit_code == 2
    assert files_of(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_destination_without_permission_is_wrong_use(tmp_path: Path, fake_pack: str) -> None:
    write_tree(tmp_path / "photos", {"a.png": png(face())})
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot be written to"):
        score(tmp_path / "photos", tmp_path / "closed/out", fake_pack)


def test_photos_on_which_a_model_raises_are_rows_of_their_own(
    tmp_path: Path, mortal_pack: str
) -> None:
    from skinbatch.models.fake import RAISES

    photos = {f"{n}.png": png(face(n, 0, n, RAISES if n == 2 else None)) for n in range(6)}
    report = score(
        write_tree(tmp_path / "photos", photos), tmp_path / "out", mortal_pack, max_failures=0.5
    )
    found = rows(tmp_path / "out")
    assert {i for i, r in found.items() if r["status"] != "ok"} == {"2.png"}
    assert found["2.png"]["status"] == "model_error"
    assert "segmenter: RuntimeError: the photo has the colour" in found["2.png"]["error"]
    assert report.exit_code == 0
