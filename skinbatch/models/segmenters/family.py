"""Build BiSeNet segmenters, and recognise their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from skinbatch.models.checkpoint import check_tensors, read_tensors
from skinbatch.models.family import BuildOptions, Family, ImportedFile
from skinbatch.models.findings import ASSUMED, Recognised
from skinbatch.models.layers import Shapes, find_network, shapes_of
from skinbatch.models.preprocess import Normalisation
from skinbatch.models.protocols import Segmenter
from skinbatch.models.recognition import check_outputs, describe_place
from skinbatch.models.segmenters.bisenet import AUXILIARY, BiSeNet
from skinbatch.models.segmenters.face_parsing import from_face_parsing, outputs
from skinbatch.models.segmenters.face_parsing import recognise as recognise_layers
from skinbatch.models.segmenters.segmenter import BiSeNetSegmenter
from skinbatch.models.stages import SegmenterStage
from skinbatch.models.weights import read_weights


def build(stage: SegmenterStage, weights: Path, options: BuildOptions) -> BiSeNetSegmenter:
    """Build a segmenter. weights: a safetensors file."""
    return BiSeNetSegmenter(
        stage.arch,
        stage.classes,
        read_weights(weights),
        size=stage.size,
        normalisation=Normalisation(stage.mean, stage.std),
        spatial=stage.spatial,
        align_corners=stage.align_corners,
        **options.for_torch(weights),
    )


def recognise(file: ImportedFile) -> Recognised:
    """Return the BiSeNet of a checkpoint and its settings."""
    path, given = file.path, file.given
    tensors = read_tensors(path).tensors
    defaults = dict(file.architecture.defaults)

    forms = [given["spatial"]] if "spatial" in given else ["path", "context"]
    variants: list[Shapes] = []
    for spatial in forms:
        stage = file.make({**defaults, **given, "spatial": spatial})
        assert isinstance(stage, SegmenterStage)
        variants.append(_layers(stage))

    network = find_network(path, tensors, variants, _to_bisenet, file.prefix)
    check_tensors(path, network.tensors)
    fields = defaults | recognise_layers(network.tensors)
    check_outputs(path, outputs(network.tensors), file.make({**fields, **given}), given)

    sources = {
        "layers": describe_place(network),
        "pixels": f"{ASSUMED}: those of ImageNet, as for most networks; set mean and std in a file for --config",
    }
    if fields["align_corners"]:
        sources |= dict.fromkeys(
            ("pixels", "size"),
            "as the public face-parsing code reads photos; its layers are the same",
        )
    if "classes" in fields:
        sources["classes"] = (
            "the order of the public face-parsing checkpoints, which have the same layers and 19 outputs"
        )
    return Recognised(fields, sources, network.tensors)


def _layers(stage: SegmenterStage) -> Shapes:
    return shapes_of(
        lambda: BiSeNet(stage.arch, len(stage.classes), spatial=stage.spatial, auxiliary=False)
    )


def _to_bisenet(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    named = from_face_parsing(state)
    return {name: tensor for name, tensor in named.items() if not name.startswith(AUXILIARY)}


FAMILY: Family[SegmenterStage, Segmenter] = Family(build, recognise)
