"""Find the settings of classifiers: by their architecture, and in the layers of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from torch import Tensor

from skinbatch.errors import PackError
from skinbatch.models.architectures import ARCHITECTURES, Architecture
from skinbatch.models.classifiers.classifier import PLAIN_CNN
from skinbatch.models.classifiers.torchvision_layouts import is_torchvision, to_timm


def network_name(arch: str, backbone: str | None) -> str:
    """Return the network name of a stage for ClassifierSpec. backbone: for arch `timm`."""
    return ARCHITECTURES["classifier"][arch].timm_name or backbone or arch


def classifier_defaults(architecture: Architecture, backbone: str | None = None) -> dict[str, Any]:
    """Return the fields of a ClassifierStage for an architecture, if nothing else is known.

    These are `top`, `size`, `mean`, `std` and `outputs`. If the entry of the architecture does not
    have them, mean, std and size are those of timm's own weights.

    Raises PackError if timm lacks the backbone.
    """
    fields = dict(architecture.defaults)
    if architecture.name == PLAIN_CNN:
        return fields
    own = _own(architecture.name, backbone)
    of_timm = {
        "size": max(own.input_size[1:]),
        "mean": tuple(own.mean),
        "std": tuple(own.std),
    }
    return of_timm | fields


def recognise(
    arch: str, state: Mapping[str, Tensor], backbone: str | None = None
) -> dict[str, Any]:
    """Return the fields of a ClassifierStage that follow from a checkpoint's layers.

    These are `top` and the fields that go with it. A network with its own classifier (`native`) and
    several outputs is assumed to use softmax, as most do.
    """
    if arch == PLAIN_CNN:
        return {"top": "native"}
    if (
        all(name.startswith(("backbone.", "head.")) for name in state)
        and "head.out.weight" in state
    ):
        if "head.conv.weight" in state:
            return {"top": "pooled"}
        return {"top": "flatten"} | ({"size": 224} if arch == "resnet50" else {})
    fields: dict[str, Any] = {"top": "native"}
    if (number := outputs(arch, state, backbone)) is not None:
        fields["outputs"] = "softmax" if number > 1 else "logistic"
    if is_torchvision(arch, state) and arch == "vgg19":
        fields["size"] = 224
    return fields


def outputs(arch: str, state: Mapping[str, Tensor], backbone: str | None = None) -> int | None:
    """Return the number of classes of a classifier's checkpoint; None if it cannot be seen."""
    names = ["out.weight" if arch == PLAIN_CNN else "head.out.weight"]
    if arch != PLAIN_CNN:
        own = _own(arch, backbone).classifier
        names += [f"{name}.weight" for name in ([own] if isinstance(own, str) else own or ())]
    state = to_timm(arch, state)
    return next((int(state[name].shape[0]) for name in names if name in state), None)


def _own(arch: str, backbone: str | None) -> Any:
    name = network_name(arch, backbone)
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        raise PackError(f"timm {timm.__version__} has no backbone `{name}`")
    return config
