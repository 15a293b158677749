"""Start a network's training from another network's weights, perhaps with a frozen backbone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from skinbatch.errors import UsageError
from skinbatch.models.checkpoint import read_checkpoint
from skinbatch.models.classifiers.classifier import ClassifierNetwork
from skinbatch.models.classifiers.efficientnet_lite_layout import from_lite
from skinbatch.models.classifiers.torchvision_layouts import to_timm
from skinbatch.models.segmenters.bisenet import BiSeNet
from skinbatch.models.stages import AnyStage
from skinbatch.models.weights import BOOKKEEPING

# Places in our networks where a checkpoint of a backbone alone may belong.
_PLACES = ("", "backbone.", "backbone.net.", "cp.resnet.", "cp.resnet.net.")


def read_start(path: Path, stage: AnyStage) -> dict[str, Tensor]:
    """Read the tensors of a weights file under the names of timm's layers.

    Raises PackError naming the file.
    """
    return to_timm(stage.arch, from_lite(read_checkpoint(path)))


def start_from(network: nn.Module, state: Mapping[str, Tensor], where: str) -> str:
    """Load every layer that fits by name and shape, and describe in words what was loaded.

    The other layers, such as a last layer for other classes, start from random values.

    Raises UsageError if less than half of the layers or of the file fit: the file is of another
    architecture.
    """
    own = {
        name: value
        for name, value in network.state_dict().items()
        if not name.endswith(BOOKKEEPING)
    }
    fitting = [_fitting(own, state, place) for place in _PLACES]
    taken = max(fitting, key=len)
    if 2 * len(taken) < min(len(own), len(state)):
        first = next((name for name in own if name not in taken), "")
        raise UsageError(
            f"{where}: {len(taken)} of its {len(state)} layers fit this architecture, `{first}` is among those that it lacks; "
            "set `model.weights` to weights of the same architecture"
        )
    network.load_state_dict(taken, strict=False)
    anew = [name for name in own if name not in taken]
    rest = (
        f"; new: {', '.join(anew[:3])}{f' and {len(anew) - 3} more' if len(anew) > 3 else ''}"
        if anew
        else ""
    )
    return f"started from {where}: {len(taken)} of {len(own)} layers{rest}"


def _fitting(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], place: str
) -> dict[str, Tensor]:
    return {
        place + name: value.float() if value.is_floating_point() else value
        for name, value in state.items()
        if place + name in own and own[place + name].shape == value.shape
    }


def freeze_backbone(network: nn.Module, where: str) -> None:
    """Leave only the layers above the backbone trainable.

    Raises UsageError for a network without a backbone.
    """
    if isinstance(network, ClassifierNetwork | BiSeNet):
        network.freeze_backbone()
    # A network of timm's.
    elif isinstance(own := getattr(network, "get_classifier", lambda: None)(), nn.Module):
        network.requires_grad_(False)
        own.requires_grad_(True)
    else:
        raise UsageError(
            f"{where}: setting `model.freeze`: this architecture has no backbone; leave it out"
        )
