"""Find settings of a recipe that are right by themselves but do not go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from skinbatch.train.recipe import Recipe

# Settings of each stage that would change nothing.
_WITHOUT: Mapping[str, Sequence[str]] = {
    "segmenter": (
        "data.stretched",
        "data.crop",
        "data.face",
        "data.apart",
        "data.negatives",
        "augment.mosaic",
        "augment.on_lesion",
        "augment.off_lesion",
        "augment.resolution",
        "augment.sharpen",
        "data.repeat",
        "data.negative_share",
    ),
    "detector": (
        "data.apart",
        "augment.erase",
        "augment.blemish",
        "augment.scene",
        "augment.closeup",
    ),
    "classifier": (
        "data.stretched",
        "data.repeat",
        "data.negative_share",
        "augment.mosaic",
        "augment.on_lesion",
        "augment.off_lesion",
        "augment.scene",
        "augment.closeup",
        "augment.blemish",
    ),
}


def misfits(recipe: Recipe) -> Iterator[str]:
    """Yield a sentence for each pair of settings that do not go together."""
    stage = recipe.model.stage
    if recipe.model.fit_anchors is not None and recipe.stage != "detector":
        yield f"{recipe.file}: setting `model.fit_anchors` is only for detectors; leave it out"
    if recipe.clone is not None and recipe.stage != "detector":
        yield f"{recipe.file}: [clone] is only for detectors; leave it out"
    elif recipe.clone is not None and recipe.base is None:
        yield f"{recipe.file}: [clone] needs `base`, a pack whose segmenter finds the skin"
    if (stage.arch == "mmdet") != (recipe.model.config is not None):
        yield f"{recipe.file}: arch `mmdet` needs the setting `model.config`, a config file, and no other arch takes it"
    classes = {*recipe.classes, *(name for t in recipe.transfer for name in t.classes or ())}
    views = [
        view
        for data in recipe.data_sections
        for view in (data, *data.train, *data.valid, *data.negatives)
    ]
    for name in _WITHOUT[recipe.stage]:
        section, _, setting = name.partition(".")
        if any(
            getattr(table, setting, None)
            for table in ((recipe.augment,) if section == "augment" else views)
        ):
            yield f"{recipe.file}: setting `{name}` does not apply to a {recipe.stage}; leave it out"
    if recipe.calibration is not None and recipe.stage != "classifier":
        yield f"{recipe.file}: [calibration] is only for classifiers; leave it out"
    if recipe.stage == "detector" and recipe.schedule.sampling != "all":
        yield f"{recipe.file}: setting `schedule.sampling` does not apply to a detector; leave it out"
    if recipe.stage == "detector" and recipe.run.precision == "bf16":
        yield f"{recipe.file}: setting `run.precision`: a detector is not trained in bf16; set auto"
    if recipe.model.freeze != "none" and recipe.model.weights is None:
        yield f"{recipe.file}: setting `model.freeze` would freeze random weights; set `model.weights` too"
    for data in recipe.data_sections:
        for name in data.apart:
            if name not in classes:
                yield f"{recipe.file}: setting `data.apart`: {name!r} is not a class of the model: {', '.join(recipe.classes)}"
        for name, meant in data.map.items():
            if meant and meant not in classes:
                known = ", ".join(recipe.classes)
                yield f"{recipe.file}: setting `data.map`: {name!r} becomes {meant!r}, which is not a class of the model: {known}"
