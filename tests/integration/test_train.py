"""Run `skinbatch train` on forty photos: the loss falls, and an interrupted or killed training
continues undisturbed.

The pack scores, and photos that would spoil a training are named before it starts.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import skinbatch
from skinbatch.annotations.masks import BODY, UNSURE
from skinbatch.errors import ClaimError, PackError, UsageError
from skinbatch.models.pack import load_pack
from skinbatch.train.fitting.progress import SilentProgress
from skinbatch.train.fitting.recipe_parts import gather_part, parts_of
from skinbatch.train.photo_checks import known_by
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.session import train
from tests.conftest import SHARED
from tests.faces import face, rows
from tests.field import in_process
from tests.training import command, curve, kill, learned, until
from tests.unit.train.detection.spotted import write_spotted

SEGMENTER = """
stage = "segmenter"
name = "faces"
base = "starter"
seed = 3
[model]
arch = "bisenet-light"
classes = ["background", "skin", "nose"]
size = 64
[data]
train = [{ truth = "photos" }]
valid_share = 0.2
terms = "for tests only"
[augment]
flip = 0.5
scale = [0.8, 1.5]
colour = 0.5
scene = 0.2
[schedule]
epochs = 8
batch = 8
lr = 4e-3
ema = 0.9
[run]
threads = 1
loader_threads = 1
"""
CLASSIFIER = """
stage = "classifier"
name = "shades"
base = "starter"
[model]
arch = "timm"
backbone = "tf_efficientnet_lite0"
classes = ["dark", "bright"]
size = 32
weights = "starter"
[data]
train = [{ truth = "shades" }]
valid_share = 0.25
group = '^(?:\\w+/)(\\w+)_'
negatives = [{ photos = "healthy" }]
[[transfer]]
name = "body"
data = { train = [{ truth = "body" }], valid_share = 0.25, map = { "*" = "bright" } }
schedule = { epochs = 1, batch = 8 }
[augment]
flip = 0.5
[schedule]
epochs = 10
batch = 8
lr = 3e-3
class_weights = "sqrt"
label_smoothing = 0.05
[run]
threads = 1
loader_threads = 0
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return forty photos with masks: real ones if they are there, else drawn ones."""
    root = tmp_path_factory.mktemp("faces")
    images, masks = root / "photos" / "images", root / "photos" / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    real = SHARED / "data" / "celebamask"
    names = sorted(path.stem for path in (real / "images").glob("*.jpg"))[:40]
    for name in names:
        shutil.copyfile(real / "images" / f"{name}.jpg", images / f"{name}.jpg")
        shutil.copyfile(real / "masks" / f"{name}.png", masks / f"{name}.png")
    for n in range(len(names), 40):
        rgb = face(left=n % 6, right=n // 6 % 6, shade=2 * n, corner=(5 * n, 200 - 4 * n, 90))
        skin = np.where((rgb[..., 0] > 190) & (rgb[..., 1] > 40), 1, 0).astype(np.uint8)
        skin[44:56, 44:52] = 2
        Image.fromarray(rgb).save(images / f"{n:02}.png")
        Image.fromarray(skin).save(masks / f"{n:02}.png")
    (root / "recipe.toml").write_text(SEGMENTER)
    return root


@pytest.mark.slow
def test_a_training_that_is_interrupted_and_killed_ends_as_an_undisturbed_one_and_its_pack_scores(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train("segmenter", faces / "recipe.toml", tmp_path / "whole", SilentProgress())
    assert whole.trained is not None
    losses = [point["loss"] for point in whole.trained.curve]
    assert losses[-1] < 0.7 * losses[0]

    out, work = tmp_path / "disturbed", tmp_path / "disturbed" / "work" / "segmenter"
    running = command("segmenter", faces / "recipe.toml", out)
    until(running, work, 1)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 130, said
    assert "waited for data" in said
    running = command("segmenter", faces / "recipe.toml", out)
    until(running, work, len(curve(work)) + 1)
    kill(running)
    assert len(curve(work)) < 8
    resumed = train("segmenter", faces / "recipe.toml", out, SilentProgress())
    assert resumed.trained is not None
    assert learned(curve(work)) == learned(curve(tmp_path / "whole" / "work" / "segmenter"))
    assert resumed.pack.weights["segmenter"] == whole.pack.weights["segmenter"]

    again = train("segmenter", faces / "recipe.toml", out, SilentProgress())
    assert again.trained is None
    assert again.metrics == resumed.metrics
    load_pack(out / "faces").verify()
    (tmp_path / "few").mkdir()
    for path in sorted((faces / "photos" / "images").iterdir())[:3]:
        shutil.copyfile(path, tmp_path / "few" / path.name)
    report = skinbatch.score(
        str(tmp_path / "few"), str(tmp_path / "scored"), pack=str(out / "faces"), engine="local"
    )
    assert report.exit_code == 0
    assert {row["status"] for row in rows(tmp_path / "scored").values()} == {"ok"}

    # The commands on the card judge the validation photos, and no others.
    own = (resumed.pack.text("CARD.md") or "").partition("## Trained: segmenter")[2]
    commands = (
        own.partition("score the validation photos with the whole pack")[2]
        .split("```")[1]
        .rstrip()
        .replace("AGAIN", str(out))
        .replace("OUT-segmenter", str(tmp_path / "judged"))
    )
    text = (
        commands.replace("--save-masks", "--save-masks --engine local")
        + f" --out {tmp_path / 'evaluation'}"
    )
    monkeypatch.chdir(faces)
    for line in text.strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "skinbatch"
        code, _, errors = in_process.command(*arguments)
        assert code == 0, errors
    found = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    assert found["all"]["masks"]["photos"] == 8
    assert set(rows(tmp_path / "judged")) == set((work / "valid.csv").read_text().splitlines()[1:])


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return dark and bright photos of four patients each, grey ones of healthy people, and other body parts."""
    root = tmp_path_factory.mktemp("shades")
    rng = np.random.default_rng(0)

    def photo(path: Path, grey: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        texture = rng.integers(-18, 19, (12, 12, 1)).repeat(4, 0).repeat(4, 1)
        Image.fromarray(np.clip(grey + texture, 0, 255).astype(np.uint8).repeat(3, 2)).save(path)

    for name, grey in (("dark", 45), ("bright", 210)):
        for patient in range(4):
            for view in range(4):
                photo(root / "shades" / name / f"{name[0]}{patient}_{view}.png", grey + 3 * patient)
    for n in range(12):
        photo(root / "healthy" / f"{n}.png", 128)
        photo(root / "body" / ("elbow" if n % 2 else "knee") / f"{n}.png", 60 + 90 * (n % 2))
    (root / "recipe.toml").write_text(CLASSIFIER)
    return root


def test_a_segmenter_learns_close_ups_from_masks_that_are_unsure_and_its_pack_tells_them(
    faces: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for n in range(16):
        for kind in ("images", "masks"):
            (faces / "near" / kind).mkdir(parents=True, exist_ok=True)
        skin = np.clip(random.normal((200, 150, 120), 8, (64, 64, 3)), 0, 255).astype(np.uint8)
        numbers = np.full((64, 64), BODY if n % 4 == 0 else 1, np.uint8)
        numbers[48:, :24] = UNSURE
        if n % 4 == 0:
            skin[:, 40:], numbers[:, 40:] = (20, 40, 160), 0
        Image.fromarray(skin).save(faces / "near" / "images" / f"{n:02}.png")
        Image.fromarray(numbers).save(faces / "near" / "masks" / f"{n:02}.png")
    text = SEGMENTER.replace('"nose"]', '"nose", "body"]\ncloseups = true')
    text = text.replace(
        '[{ truth = "photos" }]\nvalid_share = 0.2',
        '[{ truth = "photos", valid_share = 0.2 }, { truth = "near", valid_share = 0.25 }]\nmap = { neck = "body" }',
    )
    text = text.replace("scene = 0.2", "scene = 0.2\ncloseup = 0.4").replace(
        "epochs = 8", "epochs = 3"
    )
    text = text.replace("ema = 0.9", 'ema = 0.9\nsampling = "balanced"')
    (faces / "near.toml").write_text(text)
    found = train("segmenter", faces / "near.toml", tmp_path, SilentProgress())
    assert found.trained is not None
    points = found.trained.curve
    assert points[-1]["loss"] < points[0]["loss"]
    sources = [name.removeprefix("score ") for name in points[-1] if name.startswith("score ")]
    assert [Path(source).name for source in sources] == ["photos", "near"]
    mean = np.mean([points[-1][f"score {source}"] for source in sources])
    assert points[-1]["score"] == pytest.approx(float(mean), abs=1e-3)
    assert {("dice", f"skin, {source}") for source in sources} <= {
        (m.name, m.of) for m in found.trained.metrics
    }
    stage = found.pack.segmenter
    assert stage.closeups
    assert stage.numbers()["closeups"] is True
    assert found.tried is not None
    assert found.tried["status"] == "ok"


def test_a_classifier_is_trained_elsewhere_first_and_its_card_tells_all(
    shades: Path, tmp_path: Path
) -> None:
    found = train("classifier", shades / "recipe.toml", tmp_path, SilentProgress())
    trained = found.trained
    assert trained is not None
    assert trained.curve[-1]["loss"] < trained.curve[0]["loss"]
    assert [count.part for count in trained.data][:2] == ["body train", "body valid"]
    parts = {count.part: count for count in trained.data if count.source.endswith("shades")}
    assert parts["valid"].things == {"dark": 4, "bright": 4}
    by_name = {(metric.name, metric.of): metric for metric in trained.metrics}
    assert by_name["average_precision", "mean"].value > 0.9
    assert by_name["recall", "none"].photos == 3
    recall = by_name["recall", "dark"]
    assert recall.low is not None
    assert recall.high is not None
    assert recall.low <= recall.value <= recall.high
    pack = found.pack
    assert pack.manifest.classifier[0].classes == ("dark", "bright")
    assert pack.manifest.classifier[0].threshold == trained.fields["threshold"]
    card = pack.text("CARD.md") or ""
    for said in (
        "## Trained: classifier-disease",
        "body train",
        "Terms: not stated",
        "average_precision",
        "trained on `body`",
    ):
        assert said in card
    assert "## What was filled in from pack `starter`" in card
    assert (tmp_path / "work" / "classifier-disease" / "body" / "checkpoint.pt").exists()
    assert Image.open(pack.directory / "curves-classifier-disease.png").size[0] > 800
    assert found.tried is not None
    assert found.tried["status"] == "ok"


def test_probabilities_are_fitted_to_photos_apart_and_the_card_shows_how_far_they_agree(
    shades: Path, tmp_path: Path
) -> None:
    text = CLASSIFIER.replace('class_weights = "sqrt"', 'sampling = "balanced"')
    text = text.replace("[run]", "[calibration]\nnone_kept = 0.9\nnamed_right = 0.8\n[run]")
    (shades / "calibrated.toml").write_text(text)
    found = train("classifier", shades / "calibrated.toml", tmp_path, SilentProgress())
    assert found.trained is not None
    stage = found.pack.manifest.classifier[0]
    assert stage.calibration is not None
    assert len(stage.calibration.shift) == 2
    assert stage.numbers()["calibration"] == found.trained.fields["calibration"]
    by_name = {(metric.name, metric.of): metric.value for metric in found.trained.metrics}
    assert 0 <= by_name["calibration error", "dark"] <= 1
    assert by_name["right where something is named", ""] >= 0.8
    healthy = next(
        value for (name, _), value in by_name.items() if name.startswith("nothing named on")
    )
    assert healthy >= 0.9
    card = found.pack.text("CARD.md") or ""
    assert "reliability-classifier-disease.png" in card
    assert Image.open(found.pack.directory / "reliability-classifier-disease.png").size[0] > 400
    assert found.tried is not None
    assert found.tried["status"] == "ok"
    assert json.loads(json.dumps(found.as_json()))["training"]["reliability"].endswith(
        "reliability.png"
    )


@pytest.mark.slow
def test_a_pack_that_cannot_score_is_no_success(shades: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(load_pack("starter").directory, broken)
    (weights,) = broken.glob("segmenter.*")
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    save_file(
        {name: torch.full_like(value, torch.nan) for name, value in load_file(weights).items()},
        weights,
    )
    manifest = (broken / "pack.toml").read_text()
    (broken / "pack.toml").write_text(
        manifest.replace(before, hashlib.sha256(weights.read_bytes()).hexdigest())
    )
    (shades / "broken.toml").write_text(
        CLASSIFIER.replace('base = "starter"', f'base = "{broken}"')
    )
    for _ in range(2):  # nor when it is run again
        with pytest.raises(PackError, match=r"cannot score .*: segmenter: .*curves"):
            train("classifier", shades / "broken.toml", tmp_path / "out", SilentProgress())


def test_what_spoils_a_training_is_told_first_and_strict_makes_it_an_error(
    shades: Path, tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt"
    shutil.copytree(shades, spoilt)
    (spoilt / "shades" / "dark" / "d0_9.png").write_bytes(
        (spoilt / "shades" / "dark" / "d0_0.png").read_bytes()[:200]
    )
    (spoilt / "healthy" / "3.png").write_bytes(b"no photo")
    (spoilt / "shades" / "moles").mkdir()
    shutil.copyfile(spoilt / "healthy" / "0.png", spoilt / "shades" / "moles" / "m_0.png")
    with pytest.raises(UsageError) as error:
        train("classifier", spoilt / "recipe.toml", tmp_path / "out", SilentProgress(), strict=True)
    assert "d0_9.png" in str(error.value)
    assert "moles" in str(error.value)
    assert "healthy/3.png" in str(error.value), "of a folder of negatives"

    class Heard(SilentProgress):
        notes: list[str] = []  # noqa: RUF012

        def note(self, text: str) -> None:
            self.notes.append(text)

        def step(self, now: Any) -> None:
            raise KeyboardInterrupt

    heard = Heard()
    with pytest.raises(KeyboardInterrupt):
        train("classifier", spoilt / "recipe.toml", tmp_path / "out", heard)
    assert any("d0_9.png" in note for note in heard.notes)
    (work,) = (tmp_path / "out" / "work").iterdir()
    unreadable = json.loads((work / "problems.json").read_text())["photos that cannot be read"]
    assert sorted(Path(problem["file"]).name for problem in unreadable) == ["3.png", "d0_9.png"], (
        "each once"
    )
    assert not any("0x" in problem["what"] for problem in unreadable)


def test_the_split_that_is_checked_is_the_one_that_is_trained(shades: Path, tmp_path: Path) -> None:
    spoilt = Path(shutil.copytree(shades, tmp_path / "spoilt"))
    for name in ("dark/d0_1", "bright/b2_3"):
        (spoilt / "shades" / f"{name}.png").write_bytes(b"no photo")

    class Stops(SilentProgress):
        def step(self, now: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("classifier", spoilt / "recipe.toml", tmp_path / "out", Stops())
    (work,) = (tmp_path / "out" / "work").iterdir()
    kept = json.loads((work / "photos.json").read_text())
    recipe = read_recipe(spoilt / "recipe.toml", "classifier")
    recipe = recipe.without(
        spoilt / "shades" / f"{name}.png" for name in ("dark/d0_1", "bright/b2_3")
    )
    body, last = (gather_part(recipe, part) for part in parts_of(recipe))
    for name, taken in (("body train", body.train), ("train", last.train), ("valid", last.valid)):
        assert kept[name] == {"photos": len(taken), "sha256": known_by(taken, {})}


def test_photos_that_look_alike_are_groups_on_request_and_the_training_lists_them(
    shades: Path, tmp_path: Path
) -> None:
    class Stops(SilentProgress):
        def __init__(self) -> None:
            super().__init__()
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

        def step(self, now: Any) -> None:
            raise KeyboardInterrupt

    progress = Stops()
    with pytest.raises(KeyboardInterrupt):
        train("classifier", shades / "recipe.toml", tmp_path, progress, group="look")

    (work,) = (tmp_path / "work").iterdir()
    with open(work / "train.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    valid = (work / "valid.csv").read_text().splitlines()[1:]
    assert len(listed) + len(valid) == 32 + 12
    assert not {row["uri"] for row in listed} & set(valid)
    assert all(row["group"].startswith("the look of ") for row in listed)
    assert any("groups in 44 photos" in note and "look alike" in note for note in progress.notes)

    with pytest.raises(UsageError, match=r'`data\.group` was "look"'):
        train("classifier", shades / "recipe.toml", tmp_path, SilentProgress())
    with pytest.raises(UsageError, match=r"--group \(: not a regular expression"):
        train("classifier", shades / "recipe.toml", tmp_path, SilentProgress(), group="(")


def test_a_folder_is_for_one_training_at_a_time_and_of_one_recipe(
    shades: Path, tmp_path: Path
) -> None:
    class Curious(SilentProgress):
        said = ""

        def step(self, now: Any) -> None:
            with pytest.raises(ClaimError) as error:
                train("classifier", shades / "recipe.toml", tmp_path, SilentProgress())
            self.said = str(error.value)
            raise KeyboardInterrupt

    curious = Curious()
    with pytest.raises(KeyboardInterrupt):
        train("classifier", shades / "recipe.toml", tmp_path, curious)
    assert "another training is using this folder" in curious.said
    (shades / "other.toml").write_text(CLASSIFIER.replace("lr = 3e-3", "lr = 1e-3"))
    with pytest.raises(
        UsageError, match=r"another recipe: `schedule.lr` was 0.003, is 0.001; give another --out"
    ):
        train("classifier", shades / "other.toml", tmp_path, SilentProgress())


def test_photos_that_changed_since_a_training_began_end_it_before_they_leak(
    shades: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(shades, tmp_path / "own"))

    class Stops(SilentProgress):
        def step(self, now: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("classifier", own / "recipe.toml", tmp_path / "out", Stops())
    sorted((own / "shades" / "dark").iterdir())[0].unlink()
    with pytest.raises(
        UsageError,
        match=r"have changed since it began \(.*photos then, .* now\); give another --out",
    ):
        train("classifier", own / "recipe.toml", tmp_path / "out", SilentProgress())


def test_a_base_that_cuts_faces_otherwise_ends_a_training_that_goes_on(
    shades: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(shades, tmp_path / "own"))
    shutil.copytree(load_pack("starter").directory, own / "base")
    text = CLASSIFIER.replace('base = "starter"', 'base = "./base"').replace(
        '"healthy" }', '"healthy", face = true }'
    )
    (own / "recipe.toml").write_text(text)

    class Stops(SilentProgress):
        def step(self, now: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("classifier", own / "recipe.toml", tmp_path / "out", Stops())
    (weights,) = (own / "base").glob("segmenter.*")
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    save_file({name: value * 1.01 for name, value in load_file(weights).items()}, weights)
    manifest = (own / "base" / "pack.toml").read_text()
    (own / "base" / "pack.toml").write_text(
        manifest.replace(before, hashlib.sha256(weights.read_bytes()).hexdigest())
    )
    with pytest.raises(UsageError, match=r"have changed since it began \(segmenter of the base\)"):
        train("classifier", own / "recipe.toml", tmp_path / "out", SilentProgress())


def test_an_annotation_of_the_same_length_that_says_something_else_is_noticed(
    faces: Path, tmp_path: Path
) -> None:
    own = write_spotted(tmp_path / "own")
    recipe = read_recipe(own)
    (part,) = parts_of(recipe)
    before = known_by(gather_part(recipe, part).train, {})
    (file, *_) = sorted((own.parent / "train").glob("*.xml"))
    text = file.read_text()
    end = text.index("</xmin>")
    file.write_text(text[: end - 1] + ("1" if text[end - 1] == "0" else "0") + text[end:])
    assert known_by(gather_part(recipe, part).train, {}) != before


def test_a_training_that_finds_nothing_says_so_on_its_card_too(
    shades: Path, tmp_path: Path
) -> None:
    recipe = write_spotted(tmp_path / "own", photos=8)
    text = (
        recipe.read_text()
        .replace("epochs = 6", "iterations = 1")
        .replace("lr = 0.006", "lr = 1e-9")
    )
    recipe.write_text(text.replace('name = "spots"', 'name = "spots"\nbase = "starter"'))

    class Heard(SilentProgress):
        notes: list[str] = []  # noqa: RUF012

        def note(self, text: str) -> None:
            self.notes.append(text)

    heard = Heard()
    found = train("detector", recipe, tmp_path / "out", heard)
    assert any(note.startswith("no evaluation had a score above 0") for note in heard.notes)
    assert "no evaluation had a score above 0" in (found.pack.text("CARD.md") or "")


def test_a_note_that_a_kill_left_empty_does_not_block_a_folder(
    shades: Path, tmp_path: Path
) -> None:
    class Stops(SilentProgress):
        def step(self, now: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("classifier", shades / "recipe.toml", tmp_path, Stops())
    (work,) = (tmp_path / "work").iterdir()
    for name in ("recipe.json", "done.json", "photos.json"):
        (work / name).write_text("")
    with pytest.raises(KeyboardInterrupt):  # it goes on
        train("classifier", shades / "recipe.toml", tmp_path, Stops())
    assert json.loads((work / "photos.json").read_text())["train"]["photos"]


def test_on_another_device_or_with_other_workers_the_same_training_goes_on(
    shades: Path, tmp_path: Path
) -> None:
    class Stops(SilentProgress):
        def step(self, now: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("classifier", shades / "recipe.toml", tmp_path, Stops())
    (shades / "moved.toml").write_text(
        CLASSIFIER.replace("loader_threads = 0", "loader_threads = 1")
    )
    with pytest.raises(KeyboardInterrupt):
        train("classifier", shades / "moved.toml", tmp_path, Stops())
