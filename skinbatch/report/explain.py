"""Show where in one photo of a destination a classifier sees a class: `skinbatch explain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skinbatch.config import Config, merge
from skinbatch.errors import PackError, UsageError
from skinbatch.grading.face import Face, find_face
from skinbatch.models.build import build_classifier, build_segmenter
from skinbatch.models.pack import Pack, load_pack
from skinbatch.models.protocols import Classifier
from skinbatch.models.stages import ClassifierStage
from skinbatch.report.photo_again import Originals, find_row
from skinbatch.runs import destination
from skinbatch.runs.destination import Scoring
from skinbatch.runs.results import open_results
from skinbatch.scoring.inference import model_input
from skinbatch.storage.store import Store
from skinbatch.tables.names import column_name

Method = Literal["gradcam", "guided", "both"]
Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Question:
    """Describe what to explain.

    class_name: None: the most probable class. head: None: the pack's first classifier. method:
    `both` stands for those of the two that the network supports. pack: where the scoring's pack is
    now, if it has moved.
    """

    image_id: str
    class_name: str | None = None
    head: str | None = None
    method: Method = "both"
    pack: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Hold an explanation.

    photo: (H, W, 3) uint8 RGB as displayed. box: x1 y1 x2 y2, pixels, of the part that the
    classifier was given. maps: method -> (H, W) float32 in [0, 1], NaN where the network does not
    look. notes: what could not be drawn, and why. probabilities: class -> probability, as computed
    now, in fp32.
    """

    image_id: str
    head: str
    class_name: str
    probabilities: Mapping[str, float]
    photo: NDArray[np.uint8]
    box: tuple[int, int, int, int]
    maps: Mapping[str, Map]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "image_id": self.image_id,
            "head": self.head,
            "class": self.class_name,
            "probability": self.probabilities[self.class_name],
            "probabilities": dict(self.probabilities),
            "methods": list(self.maps),
            "notes": list(self.notes),
        }


def explain(
    store: Store, question: Question, config: Config, scoring: str | None = None
) -> Explanation:
    """Read the photo again from its source and run segmenter and classifier on it as the scorer
    does.

    Args:
        store: a destination.
        config: how to reach the source. Pack and model settings are the scoring's own.
        scoring: its fingerprint or the first digits. None: that of the newest run.

    Raises:
        UsageError: the photo cannot be explained, the pack is not the scoring's, or classifier and
            method do not go together.
    """
    results = open_results(store, scoring)
    made_by = destination.read_scoring(store, results.fingerprint)
    assert made_by is not None, "open_results has just read it"
    row = find_row(results, question.image_id)
    config = merge(config, made_by.settings)
    # Half precision is for speed on a GPU. Here a gradient is needed, and one photo is quick on any
    # machine.
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"precision": "fp32"})}
    )
    pack = pack_of(made_by, question.pack or config.pack, config, store)
    stage = _classifier_stage(pack, question.head)
    photo = Originals(results, config).read(row)
    classifier = build_classifier(
        stage, pack.weights_file(f"classifier-{stage.head}"), "cpu", config.model
    )
    face = _face(pack, photo, config, question.image_id)
    seen = model_input(photo, face, stage.input)
    values = np.asarray(classifier([seen])[0], np.float64)
    if not np.isfinite(values).all():
        raise UsageError(
            f"classifier `{stage.head}` returns NaN for `{question.image_id}`: there is nothing to explain"
        )
    index = (
        int(values.argmax())
        if question.class_name is None
        else _class_index(stage, question.class_name)
    )
    maps, notes = _maps(classifier, seen, index, question.method)
    box = face.crop if stage.input != "image" else (0, 0, photo.shape[1], photo.shape[0])
    assert box is not None, "a face that was found has a crop"
    return Explanation(
        image_id=question.image_id,
        head=stage.head,
        class_name=stage.classes[index],
        probabilities={
            name: float(value) for name, value in zip(stage.classes, values, strict=True)
        },
        photo=photo,
        box=box,
        maps={method: _placed(values_of, photo, box) for method, values_of in maps.items()},
        notes=notes,
    )


def pack_of(made_by: Scoring, address: str, config: Config, store: Store) -> Pack:
    """Return the verified pack whose stages give the scoring's numbers, or raise a PackError that
    names what differs.
    """
    scoring = f"{store.uri}, scoring {made_by.fingerprint}"
    try:
        pack = load_pack(address, config.storage)
        pack.verify()
    except PackError as e:
        raise PackError(
            f"{scoring} was made with pack `{made_by.pack}`: {e}; name where it is now with --pack"
        ) from None
    now = pack.numbers()
    for stem, recorded in made_by.numbers["pack"].items():
        # A setting that this version added is not recorded, and changes nothing at its default.
        changed = [name for name, value in recorded.items() if now.get(stem, {}).get(name) != value]
        if changed:
            raise PackError(
                f"{scoring} was made with another pack than {pack.address}: its {stem} had another "
                f"{', '.join(changed)}; name the original pack with --pack"
            )
    return pack


def _classifier_stage(pack: Pack, head: str | None) -> ClassifierStage:
    stages = pack.manifest.classifier
    if not stages:
        raise UsageError(f"pack `{pack.name}` has no classifier, so there is nothing to explain")
    for stage in stages:
        if head in (None, stage.head):
            return stage
    raise UsageError(
        f"pack `{pack.name}` has no head `{head}`; there are: {', '.join(s.head for s in stages)}"
    )


def _class_index(stage: ClassifierStage, class_name: str) -> int:
    """Return the index of a class, given its name or the way columns spell it."""
    for index, name in enumerate(stage.classes):
        if class_name in (name, column_name(name)):
            return index
    raise UsageError(
        f"head `{stage.head}` has no class `{class_name}`; there are: {', '.join(stage.classes)}"
    )


def _face(pack: Pack, photo: NDArray[np.uint8], config: Config, image_id: str) -> Face:
    segmenter = build_segmenter(pack.segmenter, pack.weights_file("segmenter"), "cpu", config.model)
    (labels,) = segmenter([photo])
    height, width = photo.shape[:2]
    face = find_face(labels, segmenter.classes, width, height, closeups=pack.segmenter.closeups)
    if face.crop is None:
        raise UsageError(
            f"`{image_id}`: its row has probabilities, but no skin is found now; use the scoring's pack and settings"
        )
    return face


def _maps(
    classifier: Classifier, seen: NDArray[np.uint8], index: int, method: Method
) -> tuple[dict[str, Map], tuple[str, ...]]:
    """Return the maps that the network supports, and why it lacks the others.

    Raises UsageError if none is left.
    """
    from skinbatch.models.classifiers.class_map import grad_cam, guided_backprop

    makers = {"gradcam": grad_cam, "guided": guided_backprop}
    maps: dict[str, Map] = {}
    refused: list[str] = []
    for name, make in makers.items():
        if method not in (name, "both"):
            continue
        try:
            maps[name] = make(classifier, seen, index)
        except UsageError as e:
            refused.append(str(e))
    if not maps:
        raise UsageError(refused[0])
    return maps, tuple(refused)


def _placed(values: Map, photo: NDArray[np.uint8], box: tuple[int, int, int, int]) -> Map:
    """Place a map of the classifier's input in the displayed original."""
    x1, y1, x2, y2 = box
    whole = np.full(photo.shape[:2], np.nan, np.float32)
    whole[y1:y2, x1:x2] = values
    return whole
