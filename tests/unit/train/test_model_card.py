"""Cards and curves of trained stages, and how a pack grows by one stage after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from skinbatch.errors import PackError
from skinbatch.models.build import classifier_spec
from skinbatch.models.classifiers.classifier import build_network
from skinbatch.models.pack import load_pack
from skinbatch.models.weights import save_weights
from skinbatch.train.recipe import FOLLOWS, Recipe, read_recipe
from skinbatch.train.results.curves import draw_curves
from skinbatch.train.results.model_card import VALID, WORK, stage_section
from skinbatch.train.results.packing import write_pack
from skinbatch.train.results.result import DataCount, Metric, TrainedStage

RECIPE = """
stage = "classifier"
name = "mine"
base = "starter"
licence = "for tests"
[model]
arch = "timm"
backbone = "regnety_002"
classes = ["rosacea", "lupus"]
head = "{head}"
size = 64
[data]
train = [{{ truth = "photos/train" }}]
valid = [{{ truth = "photos/valid" }}]
apart = ["lupus"]
terms = "Photos of nobody: free"
[data.map]
"Rosacea papules" = "rosacea"
[schedule]
epochs = 3
"""
CURVE = tuple(
    {
        "step": 10 * n,
        "epoch": n,
        "minutes": n / 2,
        "loss": 2.0 / n,
        "waited": 0.011,
        "score": 0.4 + n / 100,
        "MAE": 9.0 - n,
    }
    for n in range(1, 51)
)


def recipe(folder: Path, head: str = "disease") -> Recipe:
    (folder / f"{head}.toml").write_text(RECIPE.format(head=head))
    return read_recipe(folder / f"{head}.toml")


def trained(folder: Path, said: Recipe) -> TrainedStage:
    """A network that has learned nothing, with numbers as if it had."""
    torch.manual_seed(0)
    network = build_network(classifier_spec(said.model.stage))  # type: ignore[arg-type]
    save_weights(network, folder / "classifier.safetensors")
    return TrainedStage(
        stage="classifier",
        fields=said.model.stage.model_dump(mode="json", exclude=set(FOLLOWS), exclude_none=True) | {"threshold": 0.37},
        weights=folder / "classifier.safetensors",
        parameters=3_500_000,
        metrics=(
            Metric("count MAE", 4.2, low=3.9, high=4.6, photos=283),
            Metric("recall", 0.8125, "rosacea", 0.7, 0.9, 16),
            Metric("recall", 0.5, "lupus", None, None, 4),
            Metric("precision", 0.75, "rosacea", 0.6, 0.85, 16),
        ),
        curve=CURVE,
        data=(
            DataCount("photos/train", "train", 991, {"rosacea": 800, "lupus": 191}, {"without annotation": 3}),
            DataCount("photos/valid", "valid", 20, {"rosacea": 16, "lupus": 4}),
        ),
        steps=500,
        seconds=1500,
        hardware="a machine",
        stopped="the schedule was over",
        notes=("started from nothing",),
    )


def test_a_card_says_from_what_how_and_how_well(tmp_path: Path) -> None:
    said = recipe(tmp_path)
    card = stage_section("classifier-disease", trained(tmp_path, said), said, {"photos without an annotation": 3})
    for line in (
        "## Trained: classifier-disease",
        "regnety_002, 3.50 M parameters, classes: rosacea, lupus. Not for clinical use.",
        "| photos/train | train | 991 | 800 rosacea, 191 lupus | 3 without annotation |",
        "Terms: Photos of nobody: free",
        "Found in these photos before training: 3 photos without an annotation.",
        "| count MAE | 4.200 (3.900 to 4.600) | 283 |",
        "| rosacea | 16 | 0.812 (0.700 to 0.900) | 0.750 (0.600 to 0.850) |",
        "| lupus | 4 | 0.500 |  |",
        "500 steps in 25.0 minutes on a machine, seed 0; ended because the schedule was over.",
        "- started from nothing",
        'train = [{ truth = "photos/train" }]',
        "skinbatch train classifier disease.toml --out AGAIN",
        "skinbatch evaluate OUT photos/valid --map 'Rosacea papules=rosacea' --apart lupus",
    ):
        assert line in card.splitlines(), line


def test_the_card_says_how_every_validation_photo_is_judged_again(tmp_path: Path) -> None:
    text = RECIPE.format(head="disease")
    split = text.replace('valid = [{ truth = "photos/valid" }]', "valid_share = 0.2\ncrop = [[0.0, 0.0, 1.0, 0.8]]")
    more = text.replace('"photos/valid" }', '"photos/valid" }, { truth = "b c", format = "folders" }')
    file = text.replace("photos/valid", "valid.csv")
    (tmp_path / "valid.csv").touch()
    options = "--map 'Rosacea papules=rosacea' --apart lupus"
    for name, toml, wanted in (
        (
            "split",
            split,
            [
                f"skinbatch score AGAIN/{WORK}/classifier-disease/{VALID} OUT --pack AGAIN/mine",
                f"skinbatch evaluate OUT photos/train {options}",
            ],
        ),
        (
            "more",
            more,
            [
                "skinbatch score photos/valid OUT1 --pack AGAIN/mine",
                f"skinbatch evaluate OUT1 photos/valid {options} --out evaluation1",
                "skinbatch score 'b c' OUT2 --pack AGAIN/mine",
                f"skinbatch evaluate OUT2 'b c' {options} --format folders --out evaluation2",
            ],
        ),
        (
            "file",
            file,
            [
                f"skinbatch score AGAIN/{WORK}/classifier-disease/{VALID} OUT --pack AGAIN/mine",
                f"skinbatch evaluate OUT valid.csv {options}",
            ],
        ),
    ):
        (tmp_path / f"{name}.toml").write_text(toml)
        said = read_recipe(tmp_path / f"{name}.toml")
        card = stage_section("classifier-disease", trained(tmp_path, said), said, {})
        assert card.rstrip("`\n").split("```\n")[-1].splitlines() == wanted
        assert ("the trainer saw parts of the photos" in card) == (name == "split")
        assert "The same training from the start, with these numbers at its end:" in card


def test_the_card_says_what_its_numbers_need_besides_the_recipe(tmp_path: Path) -> None:
    text = RECIPE.format(head="disease")
    faces = load_pack("starter").weights["segmenter"][:12]
    for changed, wanted in (
        (text.replace("epochs = 3", "minutes = 3"), "start, which goes as far as its minutes reach:"),
        (
            text.replace("valid = [", "face = true\nvalid = ["),
            f"a base pack starter whose segmenter has the SHA-256 {faces}…",
        ),
        (
            text.replace("size = 64", 'size = 64\nweights = "starter"'),
            "start, given the weights starter, with these numbers",
        ),
        (text.replace("apart =", 'group = "(p[0-9])_"\napart ='), "intervals over the groups of `group`, '(p[0-9])_'."),
    ):
        (tmp_path / "changed.toml").write_text(changed)
        said = read_recipe(tmp_path / "changed.toml")
        assert wanted in stage_section("classifier-disease", trained(tmp_path, said), said, {})


def test_of_a_long_curve_some_points_are_shown_with_the_best_and_the_last(tmp_path: Path) -> None:
    said = recipe(tmp_path)
    card = stage_section("classifier-disease", trained(tmp_path, said), said, {})
    rows = [line for line in card.splitlines() if line.endswith(" |") and "1.1 %" in line]
    assert 15 < len(rows) < 30
    assert rows[-1].startswith("| 500 | 50 | 25 | 0.04 | 1.1 % | 0.9 | -41 |")


def test_a_pack_grows_by_trained_stages_and_its_card_keeps_what_it_knew(tmp_path: Path) -> None:
    for head in ("disease", "acne"):
        said = recipe(tmp_path, head)
        pack = write_pack(trained(tmp_path, said), said, tmp_path / "packs", tmp_path, {})
    pack.verify()
    assert [stage.head for stage in pack.manifest.classifier] == ["disease", "acne"]
    assert {stage.threshold for stage in pack.manifest.classifier} == {0.37}
    assert pack.manifest.classifier[0].source.startswith("trained by skinbatch")
    assert "991 photos of photos/train" in pack.manifest.classifier[0].source
    assert pack.manifest.detector is not None
    card = pack.text("CARD.md") or ""
    titles = [line for line in card.splitlines() if line.startswith("## ")]
    assert titles == [
        "## Trained: classifier-acne",
        "## Trained: classifier-disease",
        "## What was filled in from pack `starter`",
    ]
    assert "is not known here" not in card
    assert {path.name for path in pack.directory.glob("*.png")} == {
        "curves-classifier-acne.png",
        "curves-classifier-disease.png",
    }
    again = write_pack(trained(tmp_path, said), said, tmp_path / "packs", tmp_path, {})
    assert (again.text("CARD.md") or "").count("## Trained: classifier-acne") == 1


def test_a_pack_that_has_nothing_of_its_base_left_does_not_repeat_its_card(tmp_path: Path) -> None:
    said = recipe(tmp_path)
    write_pack(trained(tmp_path, said), said, tmp_path / "packs", tmp_path, {})
    text = RECIPE.format(head="disease").replace('"mine"', '"own"').replace('base = "starter"', 'base = "packs/mine"')
    (tmp_path / "own.toml").write_text(text)
    own = read_recipe(tmp_path / "own.toml")
    torch.manual_seed(1)
    pack = write_pack(trained(tmp_path, own), own, tmp_path / "packs", tmp_path, {})
    assert "What was filled in" in (pack.text("CARD.md") or ""), "segmenter and detector are the base's"
    bare = text.replace('base = "packs/mine"\n', "").replace('head = "disease"', 'head = "acne"')
    (tmp_path / "bare.toml").write_text(bare)
    later = read_recipe(tmp_path / "bare.toml")
    grown = write_pack(trained(tmp_path, later), later, tmp_path / "packs", tmp_path, {})
    assert "What was filled in" in (grown.text("CARD.md") or ""), "they still are, whatever this recipe's base"
    alone = RECIPE.format(head="disease").replace('"mine"', '"alone"').replace('base = "starter"\n', "")
    (tmp_path / "alone.toml").write_text(alone)
    without = read_recipe(tmp_path / "alone.toml")
    write_pack(trained(tmp_path, without), without, tmp_path / "packs", tmp_path, {})
    (tmp_path / "last.toml").write_text(text.replace("packs/mine", "packs/alone").replace('"own"', '"last"'))
    last = read_recipe(tmp_path / "last.toml")
    other = replace(trained(tmp_path, last), weights=_other(last, tmp_path))
    card = write_pack(other, last, tmp_path / "packs", tmp_path, {}).text("CARD.md") or ""
    assert "## Trained: classifier-disease" in card
    assert "What was filled in" not in card


def _other(said: Recipe, folder: Path) -> Path:
    """Weights that no pack has yet."""
    torch.manual_seed(2)
    save_weights(build_network(classifier_spec(said.model.stage)), folder / "other.safetensors")  # type: ignore[arg-type]
    return folder / "other.safetensors"


def test_weights_that_are_not_of_the_stage_make_no_pack(tmp_path: Path) -> None:
    said = recipe(tmp_path)
    stage = trained(tmp_path, said)
    stage.weights.write_bytes(b"nothing")
    with pytest.raises(PackError, match=r"classifier.safetensors"):
        write_pack(stage, said, tmp_path / "packs", tmp_path, {})
    assert not (tmp_path / "packs" / "mine").exists()


def test_curves_are_drawn_with_a_panel_for_numbers_of_another_scale(tmp_path: Path) -> None:
    stage = trained(tmp_path, recipe(tmp_path))
    draw_curves(stage.curve, "three panels", tmp_path / "three.png")
    plain = tuple({name: value for name, value in point.items() if name != "MAE"} for point in CURVE[:1])
    draw_curves(plain, "two panels", tmp_path / "two.png")
    with Image.open(tmp_path / "three.png") as three, Image.open(tmp_path / "two.png") as two:
        assert three.width > 1.3 * two.width
        draw_curves(plain, "two rows", tmp_path / "rows.png", [("body", stage.curve)])
        with Image.open(tmp_path / "rows.png") as rows:
            assert rows.width == three.width
            assert rows.height == 2 * two.height
