"""Write a pack's card: how each stage was trained, how good it is, and how to check that."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from skinbatch.annotations.grouping import ESTIMATE
from skinbatch.annotations.problems import Kind
from skinbatch.models.card import FILLED, OURS, TRAINED
from skinbatch.models.pack import Pack
from skinbatch.train.photos.gather import called
from skinbatch.train.recipe import Recipe
from skinbatch.train.results.curves import PLACES
from skinbatch.train.results.result import Metric, TrainedStage, best_of
from skinbatch.train.shipped import is_shipped

# The folder beside a pack that holds a folder for each of its trainings.
WORK = "work"
# A training's validation photos, as a listing for `skinbatch score`.
VALID = "valid.csv"
# The photos that a training learned from, for `skinbatch evaluate --trained-on`.
TRAINED_ON = "train.csv"
# The curves of a training in its own folder. In a pack their name comes from `in_pack`.
CURVES = "curves.png"
_ROWS = 24
_FILLED = f"## {FILLED}"
_KIND = (
    "{} they decided which weights were kept and when the training stopped, so these numbers are optimistic. Intervals are 95 % "
    "bootstrap intervals over {}."
)
_NEW = "Validation photos were never trained on, but"
# Problems that mean that validation photos were trained on too.
_SEEN = (Kind.SAME_FILE, Kind.LOOKS_SAME, Kind.SAME_GROUP)


def in_pack(stem: str) -> str:
    """Return the file name of a stage's curves in a pack, which may have more than one."""
    return f"curves-{stem}.png"


def reliability_in_pack(stem: str) -> str:
    """Return the file name in a pack of a stage's reliability diagrams."""
    return f"reliability-{stem}.png"


def write_card(
    pack: Pack, stem: str, trained: TrainedStage, recipe: Recipe, problems: Mapping[str, int]
) -> None:
    """Write CARD.md of a pack that a stage was added to.

    The card describes the stages, this stage in detail, and keeps the sections of the others.

    stem: of the stage. problems: value of Kind -> how many were found in the photos.
    """
    before = pack.text("CARD.md") or ""
    table, _, rest = before.partition(OURS)
    trained_before = _trained_sections(rest)
    is_filled = _FILLED in rest and not set(pack.stages) <= {stem, *trained_before}
    filled = _FILLED + rest.partition(_FILLED)[2] if is_filled else ""
    sections = [text for name, text in trained_before.items() if name != stem]
    mine = stage_section(stem, trained, recipe, problems, pack.lacks)
    parts = [table.rstrip(), mine, *sections, filled.rstrip()]
    (pack.directory / "CARD.md").write_text(
        "\n\n".join(part for part in parts if part) + "\n", encoding="utf-8"
    )


def stage_section(
    stem: str,
    trained: TrainedStage,
    recipe: Recipe,
    problems: Mapping[str, int],
    lacks: Sequence[str] = (),
) -> str:
    """Return the Markdown of one stage, under a heading of the second level.

    lacks: stages that the pack needs before it can score.
    """
    network = trained.fields.get("backbone") or trained.fields["arch"]
    parts = [
        f"{_heading(stem)}\n\n{network}, {trained.parameters / 1e6:.2f} M parameters, classes: "
        f"{', '.join(trained.fields['classes'])}. Not for clinical use.",
        "### Data\n\n" + _data(trained, recipe, problems),
        "### Numbers\n\n"
        + _numbers(trained.metrics)
        + f"\n{_kind(problems, recipe)}"
        + _reliability(stem, trained),
        "### Training\n\n" + _training(stem, trained, recipe),
        "### Recipe\n\n```toml\n" + recipe.as_toml() + "```",
        "### How to repeat it\n\n" + _again(recipe, stem, trained, lacks),
    ]
    return "\n\n".join(parts)


def _kind(problems: Mapping[str, int], recipe: Recipe) -> str:
    """Explain how to read the numbers, and what their intervals are over."""
    grouping = recipe.data.grouping
    over = "photos" if grouping is None else f"the groups of `group`, {grouping.text!r}"
    if grouping is not None and grouping.by_look:
        over += f", which are {ESTIMATE}"
    seen = "; ".join(
        f"{number:,} {kind.value}" for kind in _SEEN if (number := problems.get(kind.value, 0))
    )
    trained = f"Not all validation photos are new to the model ({seen}), and" if seen else _NEW
    return _KIND.format(trained, over)


def _reliability(stem: str, trained: TrainedStage) -> str:
    if trained.reliability is None:
        return ""
    return (
        f"\n\n![How well the probabilities agree with the truth]({reliability_in_pack(stem)})\n\nA point to the right of "
        "the diagonal means that the probability is higher than the share of photos that have the class. Bars show how many "
        "photos have such a probability."
    )


def _heading(stem: str) -> str:
    return f"## {TRAINED}{stem}"


def _trained_sections(card: str) -> dict[str, str]:
    """Return stem -> section of every stage that was trained into this pack before."""
    parts = re.split(r"^## ", card, flags=re.MULTILINE)
    return {
        part.partition("\n")[0].removeprefix(TRAINED): f"## {part}".rstrip()
        for part in parts
        if part.startswith(TRAINED)
    }


def _data(trained: TrainedStage, recipe: Recipe, problems: Mapping[str, int]) -> str:
    rows = [
        [
            count.source,
            count.part,
            f"{count.photos:,}",
            ", ".join(f"{number:,} {name}" for name, number in count.things.items()),
            ", ".join(f"{number:,} {reason}" for reason, number in count.left_out.items()),
        ]
        for count in trained.data
    ]
    terms = [data.terms for data in recipe.data_sections]
    terms_of_use = (
        "\n".join(dict.fromkeys(text.strip() for text in terms if text.strip())) or "not stated."
    )
    counts = "; ".join(f"{number:,} {kind}" for kind, number in problems.items()) or "none"
    return (
        _table(["source", "part", "photos", "contents", "left out"], rows)
        + f"\nTerms: {terms_of_use}\n\nProblems found in these photos before training: {counts}."
    )


def _numbers(metrics: Sequence[Metric]) -> str:
    """Return a table with one row for each class and one column for each number.

    If classes do not apply, there is one row for each number.
    """
    whole = [m for m in metrics if not m.of]
    by_class = [m for m in metrics if m.of]
    parts = []
    if whole:
        parts.append(
            _table(["number", "value", "photos"], [[m.name, _value(m), _photos(m)] for m in whole])
        )
    if by_class:
        names = list(dict.fromkeys(m.name for m in by_class))
        rows = []
        for of in dict.fromkeys(m.of for m in by_class):
            mine = {m.name: m for m in by_class if m.of == of}
            cells = [_value(mine[name]) if name in mine else "" for name in names]
            rows.append([of, _photos(next(iter(mine.values()))), *cells])
        parts.append(_table(["class", "photos", *names], rows))
    return "\n".join(parts)


def _value(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return f"{metric.value:.3f}"
    return f"{metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f})"


def _photos(metric: Metric) -> str:
    return "" if metric.photos is None else f"{metric.photos:,}"


def _training(stem: str, trained: TrainedStage, recipe: Recipe) -> str:
    lines = [
        f"{trained.steps:,} steps in {trained.seconds / 60:.1f} minutes on {trained.hardware}, seed {recipe.seed}; ended "
        f"because {trained.stopped}.",
        *(f"- {note}" for note in trained.notes),
        f"\n![The curves of this training]({in_pack(stem)})\n",
        _curve(trained.curve),
    ]
    return "\n".join(lines)


def _curve(curve: Sequence[Mapping[str, float]]) -> str:
    """Return a table of evaluations; of many, some, including the best and the last."""
    columns = list(dict.fromkeys(name for point in curve for name in point))
    best = best_of(curve)
    step = max(1, -(-len(curve) // _ROWS))
    shown = sorted({*range(0, len(curve), step), best, len(curve) - 1})
    rows = [[_cell(name, curve[n].get(name)) for name in columns] for n in shown]
    return _table(columns, rows)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return (
        f"{100 * value:.1f} %"
        if name == "waited"
        else f"{value:g}"
        if name in PLACES
        else f"{value:.4g}"
    )


def _again(recipe: Recipe, stem: str, trained: TrainedStage, lacks: Sequence[str]) -> str:
    file = shlex.quote(recipe.file.stem if is_shipped(recipe.file) else recipe.file.name)
    photos, place = (
        (" --data PHOTOS", "in PHOTOS")
        if recipe.apart_from_photos
        else ("", "in the recipe's folder")
    )
    group = (
        f" --group {shlex.quote(recipe.group_option)}" if recipe.group_option is not None else ""
    )
    lines = [
        f"This command repeats the training from the start{_how_the_same(recipe)}:",
        f"\n```\nskinbatch train {recipe.stage} {file}{photos}{group} --out AGAIN\n```\n",
    ]
    if lacks:
        return "\n".join(lines) + (
            f"\nWhen this was written the pack had no {' and no '.join(lacks)}, so it could not score: train or import one "
            "into it, or name a `base` in the recipe."
        )
    lines += [
        f"These commands, run {place}, score the validation photos with the whole pack and compare the tables with the truth"
        f"{_unlike_the_trainer(recipe)}:",
        "\n```",
        *_judged(recipe, stem, trained),
        "```",
    ]
    return "\n".join(lines)


def _judged(recipe: Recipe, stem: str, trained: TrainedStage) -> Iterator[str]:
    """Return the commands that score the validation photos once and judge them by each truth."""
    data, written = recipe.data, recipe.as_dict()["data"]
    options = [f" --map {shlex.quote(f'{name}={meant}')}" for name, meant in data.map.items()]
    options += [f" --apart {shlex.quote(name)}" for name in data.apart]
    if data.group is not None:
        options += [
            f" --group {shlex.quote(data.group)} --trained-on AGAIN/{WORK}/{stem}/{TRAINED_ON}"
        ]
    masks = " --save-masks" if recipe.stage == "segmenter" else ""
    dest = f"OUT-{stem}"
    yield f"skinbatch score AGAIN/{WORK}/{stem}/{VALID} {dest} --pack AGAIN/{recipe.name}{masks}"
    held = {count.source for count in trained.data if count.part == "valid" and count.photos}
    truths = dict.fromkeys(
        (shlex.quote(plain["truth"]), _how_read(source.format, plain.get("photos")))
        for source, plain in zip(
            data.valid or data.train, written["valid"] or written["train"], strict=True
        )
        if called(source.truth) in held
    )
    for number, (truth, form) in enumerate(truths, 1):
        report = f" --out evaluation-{stem}{f'-{number}' if len(truths) > 1 else ''}"
        yield f"skinbatch evaluate {dest} {truth}{''.join(options)}{form}{report}"


def _how_read(form: str | None, photos: str | None) -> str:
    """Return the options of `evaluate` that read a truth."""
    options = f" --format {form}" if form is not None else ""
    return options + (f" --photos {shlex.quote(photos)}" if photos is not None else "")


def _how_the_same(recipe: Recipe) -> str:
    """Explain what the final numbers depend on besides the recipe."""
    needs = [f"the weights {recipe.model.weights}"] if recipe.model.weights is not None else []
    if (faces := recipe.face_finder()) is not None:
        needs.append(f"a base pack {recipe.base} whose segmenter has the SHA-256 {faces[:12]}…")
    given = f", given {' and '.join(needs)}" if needs else ""
    minutes = any(
        s.minutes is not None for s in (recipe.schedule, *(t.schedule for t in recipe.transfer))
    )
    ends = "it gets as far as its minutes allow" if minutes else "it ends with these numbers"
    return f"{given}; {ends}"


def _unlike_the_trainer(recipe: Recipe) -> str:
    views = (recipe.data, *recipe.data.train, *recipe.data.valid)
    return (
        " (the trainer saw parts of the photos; they see whole photos)"
        if any(v.crop or v.face for v in views)
        else ""
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
