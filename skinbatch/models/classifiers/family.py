"""Build torch classifiers, of timm or the plain CNN, and recognise their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from skinbatch.errors import PackError
from skinbatch.models.checkpoint import check_tensors, read_tensors
from skinbatch.models.classifiers.classifier import (
    PLAIN_CNN,
    ClassifierSpec,
    TorchClassifier,
    build_network,
)
from skinbatch.models.classifiers.classifier_layouts import (
    classifier_defaults,
    network_name,
    outputs,
)
from skinbatch.models.classifiers.classifier_layouts import recognise as recognise_layers
from skinbatch.models.classifiers.torchvision_layouts import to_timm
from skinbatch.models.family import BuildOptions, Family, ImportedFile
from skinbatch.models.findings import ASSUMED, Recognised
from skinbatch.models.layers import Shapes, find_network, shapes_of
from skinbatch.models.preprocess import Normalisation
from skinbatch.models.protocols import Classifier
from skinbatch.models.recognition import check_outputs, describe_place
from skinbatch.models.stages import ClassifierStage
from skinbatch.models.weights import read_weights


def build(stage: ClassifierStage, weights: Path, options: BuildOptions) -> TorchClassifier:
    """Build a classifier. weights: a safetensors file."""
    return TorchClassifier(
        classifier_spec(stage), read_weights(weights), **options.for_torch(weights)
    )


def classifier_spec(stage: ClassifierStage) -> ClassifierSpec:
    """Return the description from which a torch classifier is built, in training and scoring."""
    return ClassifierSpec(
        backbone=network_name(stage.arch, stage.backbone),
        classes=stage.classes,
        head=stage.head,
        input=stage.input,
        size=stage.size,
        fit=stage.fit,
        normalisation=Normalisation(stage.mean, stage.std),
        threshold=stage.threshold,
        top=stage.top,
        outputs="softmax" if stage.outputs == "softmax" else "logistic",
        calibration=stage.calibration,
    )


def recognise(file: ImportedFile) -> Recognised:
    """Return the classifier of a checkpoint: one of timm's or torchvision's, or the plain CNN."""
    path, arch, given = file.path, file.architecture.name, file.given
    tensors = read_tensors(path).tensors
    backbone = given.get("backbone")
    defaults = classifier_defaults(file.architecture, backbone)

    variants = list(_variants(file, {**defaults, **given}, tensors))
    network = find_network(path, tensors, variants, lambda state: to_timm(arch, state), file.prefix)
    check_tensors(path, network.tensors)
    known = recognise_layers(arch, network.tensors, backbone)
    fields = defaults | known
    number = outputs(arch, network.tensors, backbone)
    check_outputs(path, number, file.make({**fields, **given}), given)

    name = network_name(arch, backbone)
    assumed = (
        "as for most networks with a classifier of their own"
        if "outputs" in known
        else "as in paper 000"
    )
    sources = {
        "layers": describe_place(network),
        "outputs": f"{ASSUMED}: {assumed}; set outputs in a file for --config",
        "size": f"{ASSUMED}: the architecture's own; set size in a file for --config",
        "pixels": f"{ASSUMED}: those of timm's own weights of {name}; set mean and std in a file for --config",
    }
    return Recognised(fields, sources, network.tensors)


def _variants(
    file: ImportedFile, fields: Mapping[str, Any], names: Iterable[str]
) -> Iterable[Shapes]:
    """Yield the layers of a classifier under each top that the file may have.

    The top is the network's own, or one of the papers'.
    """
    tops = ["native"]
    if file.architecture.name != PLAIN_CNN and any(
        name.endswith("head.out.weight") for name in names
    ):
        tops += ["pooled", "flatten"]
    if "top" in file.given:
        tops = [file.given["top"]]
    for top in tops:
        stage = file.make({**fields, "top": top})
        assert isinstance(stage, ClassifierStage)
        spec = classifier_spec(stage)
        try:
            yield shapes_of(lambda spec=spec: build_network(spec))  # type: ignore[misc]
        except PackError:
            # Not every backbone supports every top. If only one top is possible, the import reports
            # the error.
            if len(tops) == 1:
                raise


FAMILY: Family[ClassifierStage, Classifier] = Family(build, recognise, classifier_defaults)
