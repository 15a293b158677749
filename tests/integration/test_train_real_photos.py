"""Train a detector and a classifier on forty real photos each: the loss falls, a killed training
continues, the pack scores."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

import skinbatch
from skinbatch.models.pack import load_pack
from skinbatch.train.fitting.progress import SilentProgress
from skinbatch.train.session import train
from tests.conftest import SHARED
from tests.faces import rows
from tests.training import command, curve, kill, learned, until

DATA = SHARED / "data"
PHOTOS = 40
DETECTOR = """
stage = "detector"
name = "spots"
base = "starter"
seed = 3
[model]
arch = "yolox-tiny"
classes = ["acne"]
input = "crop"
size = 320
strides = [8, 16]
width = 0.25
head_channels = 32
[data]
train = [{ truth = "train", format = "voc" }]
valid = [{ truth = "valid", format = "voc" }]
map = { "*" = "acne" }
terms = "for tests only"
[augment]
crop = 0.5
on_lesion = 0.7
flip = 0.5
stretch = 1.4
[schedule]
epochs = 14
evaluate_every = 1
batch = 5
optimiser = "adamw"
lr = 3e-3
warmup = 10
clip = 20.0
ema = 0.8
[run]
threads = 1
loader_threads = 1
"""
CLASSIFIER = """
stage = "classifier"
name = "diseases"
base = "starter"
seed = 3
[model]
arch = "timm"
backbone = "tf_efficientnet_lite0"
classes = ["rosacea", "actinic_keratosis"]
size = 96
outputs = "logistic"
[data]
train = [{ truth = "train", format = "folders", crop = [[0.27, 0, 1, 0.78]] }]
valid_share = 0.25
terms = "for tests only"
[augment]
flip = 0.5
[schedule]
epochs = 6
batch = 8
optimiser = "adamw"
lr = 2e-3
[run]
threads = 1
loader_threads = 1
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason="needs the photos of ../shared/data"),
]


def spots(folder: Path) -> str:
    """Copy forty photos of ACNE04 with their boxes, of all severities."""
    for part, most in (("train", 30), ("valid", 10)):
        source = DATA / "acne04" / part
        (folder / part).mkdir()
        names = sorted(path.stem for path in source.glob("*.jpg"))
        for name in names[:: len(names) // most][:most]:
            for suffix in (".jpg", ".xml"):
                shutil.copyfile(source / (name + suffix), folder / part / (name + suffix))
    return DETECTOR


def diseases(folder: Path) -> str:
    """Copy forty photos of two of DermNet's classes."""
    for name in ("rosacea", "actinic_keratosis"):
        (folder / "train" / name).mkdir(parents=True)
        for path in islice(sorted((DATA / "derm" / name).glob("*.*")), PHOTOS // 2):
            shutil.copyfile(path, folder / "train" / name / path.name)
    return CLASSIFIER


@pytest.mark.parametrize(
    ("name", "prepare", "falls_to"),
    [("detector", spots, 0.9), ("classifier-disease", diseases, 0.8)],
)
def test_forty_photos_teach_a_pack_that_scores_whatever_kills_the_training(
    tmp_path: Path, name: str, prepare: Callable[[Path], str], falls_to: float
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(prepare(tmp_path))
    photos = [
        path for path in tmp_path.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    ]
    assert len(photos) == PHOTOS
    stage, out, work = name.partition("-")[0], tmp_path / "out", tmp_path / "out" / "work" / name
    running = command(stage, recipe, out)
    until(running, work, 1)
    kill(running)
    before = curve(work)
    assert len(before) < 6
    found = train(stage, recipe, out, SilentProgress())
    assert found.trained is not None
    points = curve(work)
    assert learned(points[: len(before)]) == learned(before), "it went on, and did not begin anew"
    assert points[-1]["loss"] < falls_to * points[0]["loss"]
    assert found.tried is not None and found.tried["status"] in ("ok", "no_face")
    load_pack(out / found.pack.name).verify()

    (tmp_path / "few").mkdir()
    for path in photos[:3]:
        shutil.copyfile(path, tmp_path / "few" / path.name)
    report = skinbatch.score(
        str(tmp_path / "few"),
        str(tmp_path / "scored"),
        pack=str(found.pack.directory),
        engine="local",
    )
    assert report.exit_code == 0
    scored = rows(tmp_path / "scored").values()
    assert len(scored) == 3 and {row["status"] for row in scored} <= {"ok", "no_face"}
