"""Read a recipe from its TOML file. Mistakes are reported one by one, each with the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from skinbatch.errors import PackError, UsageError
from skinbatch.models.architectures import ARCHITECTURES
from skinbatch.models.families import defaults_of
from skinbatch.models.stages import STAGES
from skinbatch.setting_errors import explain
from skinbatch.toml_file import read_toml
from skinbatch.train.recipe import FOLLOWS, UNHASHED, ModelSection, Recipe
from skinbatch.train.recipe_misfits import misfits
from skinbatch.train.shipped import is_shipped

# Names of the alternatives for the stage, which pydantic puts into places.
_STAGE_NAMES = tuple(kind.__name__ for kind in STAGES.values())


def read_recipe(path: Path, stage: str | None = None, data_folder: Path | None = None) -> Recipe:
    """Return the recipe in a TOML file. `Recipe.check_files` checks that the files it names exist.

    Args:
        path: The file. Relative paths in it are relative to its folder. In one of the package's
            own recipes they are relative to the current folder.
        stage: The stage that the command trains; None allows every stage.
        data_folder: The folder that relative paths of photos and truths start from instead.

    Raises:
        UsageError: With a line for each mistake, naming the file, the setting and its possible
            values.

    Example:
        >>> from skinbatch.train.shipped import find_recipe
        >>> recipe = read_recipe(find_recipe("starter_detector"), data_folder=Path("/photos"))
        >>> str(recipe.data.valid[0].truth)
        '/photos/acne04/valid'
    """
    folder = Path.cwd() if is_shipped(path) else path.parent.resolve()
    photos = folder if data_folder is None else data_folder.expanduser().resolve()

    try:
        data = read_toml(path)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe") from None
    own = data.get("stage")
    if not isinstance(own, str) or own not in STAGES:
        raise UsageError(
            f"{path}: setting `stage`: must be one of {', '.join(STAGES)} (got {own!r})"
        )
    if stage is not None and stage != own:
        name = path.stem if is_shipped(path) else path
        raise UsageError(f"{path}: is a recipe for a {own}: skinbatch train {own} {name}")

    mistakes: list[str] = []
    if isinstance(data.get("model"), dict):
        data["model"] = _model(own, data["model"], path, mistakes)
    try:
        context = {"folder": folder, "photos": photos}
        recipe = Recipe.model_validate_json(json.dumps(data, default=str), context=context)
    except ValidationError as e:
        mistakes += [
            explain(error, path, Recipe, leave_out=_STAGE_NAMES)
            for error in e.errors()
            if not (mistakes and error["loc"][0] == "model")
        ]
        raise UsageError("\n".join(mistakes)) from None

    recipe = recipe.located(path, folder, photos)
    mistakes += misfits(recipe)
    if mistakes:
        raise UsageError("\n".join(mistakes))
    return recipe


def _model(stage: str, table: dict[str, Any], path: Path, mistakes: list[str]) -> dict[str, Any]:
    """Return [model] with the stage's fields apart from those of training.

    Mistakes are added to `mistakes`.
    """
    own = {
        name: value
        for name, value in table.items()
        if name in ModelSection.model_fields and name != "stage"
    }
    fields = {name: value for name, value in table.items() if name not in own}
    known = [name for name in STAGES[stage].model_fields if name not in FOLLOWS]
    for name in fields:
        if name not in known:
            there = ", ".join([*known, *(n for n in ModelSection.model_fields if n != "stage")])
            mistakes.append(f"{path}: unknown setting `model.{name}`; there are: {there}")
    arch = fields.get("arch")
    trainable = {name: a for name, a in ARCHITECTURES[stage].items() if a.is_trainable}
    if not isinstance(arch, str) or arch not in trainable:
        mistakes.append(
            f"{path}: setting `model.arch`: must be one of {', '.join(trainable)} (got {arch!r})"
        )
    if mistakes:
        return own

    assert isinstance(arch, str)
    architecture, backbone = trainable[arch], fields.get("backbone")
    filled: dict[str, Any] = {}
    try:
        # Without its backbone, the stage is refused below.
        if architecture.own_field != "backbone" or backbone is not None:
            filled = defaults_of(architecture, backbone)
        filled |= fields | {"sha256": UNHASHED}
        if architecture.own_field == "config_sha256":
            filled["config_sha256"] = UNHASHED
        made = STAGES[stage].model_validate_json(json.dumps(filled, default=str))
    except PackError as e:
        mistakes.append(f"{path}: setting `model.backbone`: {e}")
    except ValidationError as e:
        mistakes += [explain(error, path, Recipe, prefix="model.") for error in e.errors()]
    else:
        return own | {"stage": made.model_dump(mode="json")}
    return own
