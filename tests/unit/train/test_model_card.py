"""Test cards and curves of trained stages, and how a pack grows by one stage after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from skinbatch.annotations.problems import Kind
from skinbatch.errors import PackError
from skinbatch.models.classifiers.classifier import build_network
from skinbatch.models.classifiers.family import classifier_spec
from skinbatch.models.pack import load_pack
from skinbatch.models.weights import save_weights
from skinbatch.train.recipe import FOLLOWS, Recipe
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.results.curves import _draw, draw_curves
from skinbatch.train.results.model_card import VALID, WORK, stage_section
from skinbatch.train.results.packing import write_pack
from skinbatch.train.results.result import DataCount, Metric, TrainedStage, best_of

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
    """Return a network that has learned nothing, with numbers as if it had."""
    torch.manual_seed(0)
    network = build_network(classifier_spec(said.model.stage))  # type: ignore[arg-type]
    save_weights(network, folder / "classifier.safetensors")
    return TrainedStage(
        stage="classifier",
        fields=said.model.stage.model_dump(mode="json", exclude=set(FOLLOWS), exclude_none=True)
        | {"threshold": 0.37},
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
            DataCount(
                "photos/train",
                "train",
                991,
                {"rosacea": 800, "lupus": 191},
                {"without annotation": 3},
            ),
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
    card = stage_section(
        "classifier-disease", trained(tmp_path, said), said, {"photos without an annotation": 3}
    )
    for line in (
        "## Trained: classifier-disease",
        "regnety_002, 3.50 M parameters, classes: rosacea, lupus. Not for clinical use.",
        "| photos/train | train | 991 | 800 rosacea, 191 lupus | 3 without annotation |",
        "Terms: Photos of nobody: free",
        "Problems found in these photos before training: 3 photos without an annotation.",
        "| count MAE | 4.200 (3.900 to 4.600) | 283 |",
        "| rosacea | 16 | 0.812 (0.700 to 0.900) | 0.750 (0.600 to 0.850) |",
        "| lupus | 4 | 0.500 |  |",
        "500 steps in 25.0 minutes on a machine, seed 0; ended because the schedule was over.",
        "- started from nothing",
        'train = [{ truth = "photos/train" }]',
        "skinbatch train classifier disease.toml --out AGAIN",
        "Validation photos were never trained on, but they decided which weights were kept and when the training stopped, so "
        "these numbers are optimistic. Intervals are 95 % bootstrap intervals over photos.",
        "skinbatch evaluate OUT-classifier-disease photos/valid --map 'Rosacea papules=rosacea' --apart lupus "
        "--out evaluation-classifier-disease",
    ):
        assert line in card.splitlines(), line


def test_the_card_says_how_every_validation_photo_is_judged_again(tmp_path: Path) -> None:
    text = RECIPE.format(head="disease")
    split = text.replace(
        'valid = [{ truth = "photos/valid" }]', "valid_share = 0.2\ncrop = [[0.0, 0.0, 1.0, 0.8]]"
    )
    more = text.replace(
        '"photos/valid" }',
        '"photos/valid" }, { truth = "b c", format = "folders" }, { truth = "none" }',
    )
    file = text.replace("photos/valid", "valid.csv")
    (tmp_path / "valid.csv").touch()
    options = "--map 'Rosacea papules=rosacea' --apart lupus"
    above, out, report = (
        tmp_path.name,
        "OUT-classifier-disease",
        "--out evaluation-classifier-disease",
    )
    for name, toml, held, wanted in (
        (
            "split",
            split,
            ["photos/train"],
            [f"skinbatch evaluate {out} photos/train {options} {report}"],
        ),
        (
            "more",
            more,
            ["photos/valid", f"{above}/b c"],  # and `none` has no photo that can be judged
            [
                f"skinbatch evaluate {out} photos/valid {options} {report}-1",
                f"skinbatch evaluate {out} 'b c' {options} --format folders {report}-2",
            ],
        ),
        (
            "file",
            file,
            [f"{above}/valid.csv"],
            [f"skinbatch evaluate {out} valid.csv {options} {report}"],
        ),
    ):
        (tmp_path / f"{name}.toml").write_text(toml)
        said = read_recipe(tmp_path / f"{name}.toml")
        counts = [DataCount(source, "valid", 4) for source in held]
        counts += [
            DataCount(f"{above}/none", "valid", 0),
            DataCount(f"{above}/none", "body valid", 3),
        ]
        card = stage_section(
            "classifier-disease", replace(trained(tmp_path, said), data=tuple(counts)), said, {}
        )
        scored = f"skinbatch score AGAIN/{WORK}/classifier-disease/{VALID} {out} --pack AGAIN/mine"
        assert card.rstrip("`\n").split("```\n")[-1].splitlines() == [scored, *wanted]
        assert ("the trainer saw parts of the photos" in card) == (name == "split")
        assert (
            "This command repeats the training from the start; it ends with these numbers:" in card
        )


def test_the_card_keeps_persons_apart_as_the_training_did(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(RECIPE.format(head="disease"))
    said = read_recipe(tmp_path / "mine.toml").grouped("look")
    made = replace(trained(tmp_path, said), data=(DataCount("photos/valid", "valid", 4),))
    card = stage_section("classifier-disease", made, said, {})
    assert "skinbatch train classifier mine.toml --group look --out AGAIN" in card
    assert f" --group look --trained-on AGAIN/{WORK}/classifier-disease/train.csv --out" in card
    assert "over the groups of `group`, 'look', which are found by photos that look alike" in card


def test_the_card_of_a_pack_that_cannot_score_says_what_is_missing(tmp_path: Path) -> None:
    text = RECIPE.format(head="disease").replace('base = "starter"\n', "")
    (tmp_path / "bare.toml").write_text(text)
    said = read_recipe(tmp_path / "bare.toml")
    pack = write_pack(trained(tmp_path, said), said, tmp_path / "packs", tmp_path, {})
    card = pack.text("CARD.md") or ""
    assert (
        "When this was written the pack had no segmenter and no detector, so it could not score"
        in card
    )
    assert "skinbatch train classifier bare.toml --out AGAIN" in card
    assert "skinbatch score" not in card and "skinbatch evaluate" not in card


def test_the_card_says_when_validation_photos_were_trained_on_too(tmp_path: Path) -> None:
    said = recipe(tmp_path)
    problems = {Kind.SAME_GROUP.value: 1200, Kind.SAME_FILE.value: 2, Kind.CROWD.value: 7}
    card = stage_section("classifier-disease", trained(tmp_path, said), said, problems)
    assert (
        "Not all validation photos are new to the model (2 the same file in two splits; 1,200 the same group in two splits), "
        "and they decided which weights were kept" in card
    )
    assert "never trained on" not in card


def test_the_card_says_what_its_numbers_need_besides_the_recipe(tmp_path: Path) -> None:
    text = RECIPE.format(head="disease")
    faces = load_pack("starter").weights["segmenter"][:12]
    for changed, wanted in (
        (text.replace("epochs = 3", "minutes = 3"), "start; it gets as far as its minutes allow:"),
        (
            text.replace("valid = [", "face = true\nvalid = ["),
            f"a base pack starter whose segmenter has the SHA-256 {faces}…",
        ),
        (
            text.replace("size = 64", 'size = 64\nweights = "starter"'),
            "start, given the weights starter; it ends with these numbers",
        ),
        (
            text.replace("apart =", 'group = "(p[0-9])_"\napart ='),
            "intervals over the groups of `group`, '(p[0-9])_'.",
        ),
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


def test_of_equal_evaluations_the_last_is_marked_whose_weights_were_kept(tmp_path: Path) -> None:
    scores = [0.1, 0.7, 0.5, 0.7, 0.6]
    curve = tuple(dict(point, score=score) for point, score in zip(CURVE, scores, strict=False))
    assert best_of(curve) == 3
    figure = Figure()
    axes = figure.subplots(1, 3)
    _draw(axes, "", curve)
    marked = [line for line in axes[1].lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in marked] == [curve[3]["step"]]
    many = tuple(
        dict(CURVE[0], step=10 * n, score=0.9 if n in (7, 44) else 0.2) for n in range(1, 100)
    )
    said = recipe(tmp_path)
    card = stage_section(
        "classifier-disease", replace(trained(tmp_path, said), curve=many), said, {}
    )
    assert "| 440 |" in card, "the best is among the points that are shown"


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
    text = (
        RECIPE.format(head="disease")
        .replace('"mine"', '"own"')
        .replace('base = "starter"', 'base = "packs/mine"')
    )
    (tmp_path / "own.toml").write_text(text)
    own = read_recipe(tmp_path / "own.toml")
    torch.manual_seed(1)
    pack = write_pack(trained(tmp_path, own), own, tmp_path / "packs", tmp_path, {})
    assert "What was filled in" in (pack.text("CARD.md") or ""), (
        "segmenter and detector are the base's"
    )
    bare = text.replace('base = "packs/mine"\n', "").replace('head = "disease"', 'head = "acne"')
    (tmp_path / "bare.toml").write_text(bare)
    later = read_recipe(tmp_path / "bare.toml")
    grown = write_pack(trained(tmp_path, later), later, tmp_path / "packs", tmp_path, {})
    assert "What was filled in" in (grown.text("CARD.md") or ""), (
        "they still are, whatever this recipe's base"
    )
    alone = (
        RECIPE.format(head="disease").replace('"mine"', '"alone"').replace('base = "starter"\n', "")
    )
    (tmp_path / "alone.toml").write_text(alone)
    without = read_recipe(tmp_path / "alone.toml")
    write_pack(trained(tmp_path, without), without, tmp_path / "packs", tmp_path, {})
    (tmp_path / "last.toml").write_text(
        text.replace("packs/mine", "packs/alone").replace('"own"', '"last"')
    )
    last = read_recipe(tmp_path / "last.toml")
    other = replace(trained(tmp_path, last), weights=_other(last, tmp_path))
    card = write_pack(other, last, tmp_path / "packs", tmp_path, {}).text("CARD.md") or ""
    assert "## Trained: classifier-disease" in card
    assert "What was filled in" not in card


def test_a_card_keeps_what_is_known_of_a_stage_however_many_packs_it_came_through(
    tmp_path: Path,
) -> None:
    first = recipe(tmp_path)
    write_pack(trained(tmp_path, first), first, tmp_path / "packs", tmp_path, {})
    text = (
        RECIPE.format(head="disease")
        .replace('"mine"', '"next"')
        .replace('base = "starter"', 'base = "packs/mine"')
    )
    (tmp_path / "next.toml").write_text(text)
    following = read_recipe(tmp_path / "next.toml")
    made = replace(trained(tmp_path, following), weights=_other(following, tmp_path))
    pack = write_pack(made, following, tmp_path / "packs", tmp_path, {})

    titles = [line for line in (pack.text("CARD.md") or "").splitlines() if "Trained" in line]
    assert sorted(titles) == [
        "## Trained: classifier-disease",
        "### Trained: detector",
        "### Trained: segmenter",
    ], "both are the starter pack's, which the pack `mine` had filled in"


def _other(said: Recipe, folder: Path) -> Path:
    """Return weights that no pack has yet."""
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
    plain = tuple(
        {name: value for name, value in point.items() if name != "MAE"} for point in CURVE[:1]
    )
    draw_curves(plain, "two panels", tmp_path / "two.png")
    with Image.open(tmp_path / "three.png") as three, Image.open(tmp_path / "two.png") as two:
        assert three.width > 1.3 * two.width
        draw_curves(plain, "two rows", tmp_path / "rows.png", [("body", stage.curve)])
        with Image.open(tmp_path / "rows.png") as rows:
            assert rows.width == three.width
            assert rows.height == 2 * two.height
