"""Turn a trained stage into a pack that is whole, verified and tried."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from skinbatch.models.assemble import add_stage
from skinbatch.models.importing import Import
from skinbatch.models.pack import Pack
from skinbatch.train.recipe import Recipe
from skinbatch.train.results.curves import draw_curves
from skinbatch.train.results.model_card import CURVES, in_pack, reliability_in_pack, write_card
from skinbatch.train.results.result import TrainedStage


def write_pack(
    trained: TrainedStage, recipe: Recipe, out: Path, work: Path, problems: Mapping[str, int]
) -> Pack:
    """Make the pack `out/<name>`, or add this stage to it, with the curves and a card.

    problems: kind -> how many. Raises PackError and UsageError before the pack is touched.
    """
    trains = [count for count in trained.data if count.part.endswith("train") and count.photos]
    source = f"trained by skinbatch {version('skinbatch')} on " + ", ".join(
        dict.fromkeys(f"{count.photos:,} photos of {count.source}" for count in trains)
    )
    request = Import(
        stage=recipe.stage,
        arch=recipe.model.stage.arch,
        weights=trained.weights,
        configs=(recipe.model.config,) if recipe.model.config is not None else (),
        fields={name: value for name, value in trained.fields.items() if name != "arch"}
        | {"source": source},
    )
    base = recipe.base_pack()
    earlier = {path.name: path.read_bytes() for path in (out / recipe.name).glob("*.png")}
    pack = add_stage(
        recipe.name,
        request,
        dest=str(out),
        base=base.address if base is not None else None,
        licence=recipe.licence,
    )
    stem = stem_of(recipe)
    title = f"{stem}, {trained.steps:,} steps, {trained.seconds / 60:.3g} minutes"
    draw_curves(trained.curve, title, work / CURVES, trained.earlier)
    for name, picture in earlier.items():
        (pack.directory / name).write_bytes(picture)
    shutil.copyfile(work / CURVES, pack.directory / in_pack(stem))
    if trained.reliability is not None:
        shutil.copyfile(trained.reliability, pack.directory / reliability_in_pack(stem))
    write_card(pack, stem, trained, recipe, problems)
    pack.verify()
    return pack


def stem_of(recipe: Recipe) -> str:
    """Return the pack's name for the stage: `segmenter`, `detector` or `classifier-<head>`."""
    head = getattr(recipe.model.stage, "head", None)
    return f"classifier-{head}" if head is not None else recipe.stage
