"""Test `skinbatch explain` on scored archives: the photo is read again, and the heat is where the cue is."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import save_file

import skinbatch
from skinbatch.cli import main as cli
from skinbatch.config import Config, parse_config
from skinbatch.demo import write_demo_archive
from skinbatch.models.classifiers.classifier import ClassifierSpec
from skinbatch.models.manifest import read_manifest, write_manifest
from skinbatch.models.pack import load_pack
from skinbatch.models.stages import ClassifierStage
from skinbatch.reading import destination_store
from skinbatch.report.explain import Explanation, Question, explain
from tests.faces import encoded, rows, write_tree
from tests.unit.models.support import green_cue_weights

# Middle of the green disc, as fractions of width and height.
CUE_AT = (0.58, 0.55)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the starter pack with a second classifier, which sees only pure green."""
    directory = Path(
        shutil.copytree(load_pack("starter").directory, tmp_path_factory.mktemp("packs") / "cued")
    )
    path = directory / "classifier-cue.safetensors"
    save_file(
        green_cue_weights(ClassifierSpec("cnn-multilabel", ("green", "nothing"), size=416)), path
    )
    stage = ClassifierStage(
        arch="cnn-multilabel",
        classes=("green", "nothing"),
        head="cue",
        top="native",
        size=416,
        fit="pad",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    manifest = read_manifest(directory)
    write_manifest(
        manifest.model_copy(update={"classifier": (*manifest.classifier, stage)}), directory
    )
    return directory


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, pack: Path) -> Path:
    """Score the demo's photos (loose, one lying on its side, one in a tar), and one with a cue,
    loose, in a zip and in Parquet."""
    folder = tmp_path_factory.mktemp("explain")
    write_demo_archive(folder / "photos", photos=4)
    with Image.open(next((folder / "photos").rglob("portrait-000.jpg"))) as portrait:
        pixels = np.array(portrait.convert("RGB"))
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width]
    pixels[np.hypot(x - CUE_AT[0] * width, y - CUE_AT[1] * height) < 0.04 * width] = (0, 255, 0)
    cued = encoded(pixels, "PNG")
    table, archive = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table({"image": [b"no photo", cued]}), table)
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("in/cued.png", cued)
    files = {"cued.png": cued, "more.parquet": table.getvalue(), "more.zip": archive.getvalue()}
    write_tree(folder / "photos", files)
    report = skinbatch.score(
        folder / "photos",
        folder / "out",
        pack=str(pack),
        engine="local",
        max_failures=1,
        config=parse_config({"model": {"precision": "fp32"}}),  # as `explain` computes
    )
    assert report.statuses["ok"] == 7
    return folder / "out"


def explained(scored: Path, image_id: str, **question: str) -> Explanation:
    return explain(destination_store(scored), Question(image_id, **question), Config())  # type: ignore[arg-type]


@pytest.mark.parametrize("image_id", ["cued.png", "more.zip/in/cued.png", "more.parquet/1"])
def test_the_heat_is_where_the_cue_lies_in_the_displayed_photo(scored: Path, image_id: str) -> None:
    found = explained(scored, image_id, head="cue")
    assert (found.class_name, list(found.maps)) == ("green", ["gradcam", "guided"])
    height, width = found.photo.shape[:2]
    x1, y1, x2, y2 = found.box
    for values in found.maps.values():
        assert values.shape == (height, width)
        assert np.isnan(values[:y1]).all() and not np.isnan(values[y1:y2, x1:x2]).any()
        ys, xs = np.nonzero(np.nan_to_num(values) > 0.9)
        assert abs(np.median(xs) / width - CUE_AT[0]) < 0.05
        assert abs(np.median(ys) / height - CUE_AT[1]) < 0.05


def test_probabilities_are_those_of_the_table(scored: Path) -> None:
    table = rows(scored)
    ok = [
        image_id
        for image_id, row in table.items()
        if row["status"] == "ok" and "portrait" in image_id
    ]
    assert any(image_id.startswith("shards/") for image_id in ok)
    for image_id in ok:
        found = explained(scored, image_id, method="gradcam")
        assert found.probabilities == pytest.approx(
            {name: table[image_id][f"prob_{name}"] for name in found.probabilities}, abs=0.01
        )
        assert found.class_name == max(
            found.probabilities, key=lambda name: found.probabilities[name]
        )


def test_another_class_has_another_map(scored: Path) -> None:
    one, two = (
        explained(scored, "cued.png", class_name=name)
        for name in ("rosacea", "basal_cell_carcinoma")
    )
    assert np.nanmax(np.abs(one.maps["gradcam"] - two.maps["gradcam"])) > 0.05


def test_the_command_writes_a_legible_png_and_says_where(
    scored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "e.png"
    arguments = ["explain", str(scored), "more.zip/in/cued.png", "--head", "cue", "-o", str(path)]
    for extra, panels in ((["--json"], 3), (["--method", "gradcam"], 2)):
        monkeypatch.setattr(sys, "argv", ["skinbatch", *arguments, *extra])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        said = capsys.readouterr().out
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert abs(picture.width - panels * 598) < 5 and picture.height > 500
        if extra == ["--json"]:
            answer = json.loads(said)
            assert (answer["written"], answer["class"]) == (str(path), "green")
            assert answer["probabilities"]["green"] == answer["probability"] > 0.9
        else:
            assert "> 0.99" in said and f"wrote {path}" in said


@pytest.mark.slow
def test_a_real_photo_from_s3_is_explained(
    shared_data: Path, tmp_path: Path, s3: Any, pack: Path
) -> None:
    bucket = s3.bucket()
    photo = next(iter(sorted((shared_data / "acne04/valid").glob("levle2*.jpg"))))
    s3.client.put_object(Bucket=bucket, Key="a/face.jpg", Body=photo.read_bytes())
    config = Config(storage=s3.settings)
    source, dest = f"s3://{bucket}/a", f"s3://{bucket}/out"
    assert skinbatch.score(
        source, dest, pack=str(pack), engine="local", config=config
    ).statuses == {"ok": 1}
    found = explain(destination_store(dest, s3.settings), Question("face.jpg"), config)
    assert set(found.maps) == {"gradcam", "guided"}
    assert found.photo.shape == (640, 640, 3)
    assert all(np.nanmax(values) == 1 for values in found.maps.values())
