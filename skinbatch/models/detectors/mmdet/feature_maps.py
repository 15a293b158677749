"""Let another runtime compute an mmdet model's numbers, up to the point where they become boxes.

mmdet decodes and suppresses boxes in Python. What comes before is one network: the backbone, the
neck, and the head of a one-stage detector or the one that proposes regions.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from skinbatch.models.runtime.network import Network, RunNetwork, prepare
from skinbatch.models.runtime.runtime import Precision, Runtime

# Height and width of the example for models that read photos of any size.
_EXAMPLE = (256, 256)


class FeatureMaps(tuple[Tensor, ...]):
    """Hold a model's feature maps together with what its head gives for them."""

    of_head: Any


def run_with(
    model: Any,
    name: str,
    size: tuple[int, int] | None,
    runtime: Runtime,
    device: str,
    precision: Precision,
) -> None:
    """Replace the parts of an mmdet model that another runtime computes.

    If that does not work with the head, the backbone and the neck are tried alone. Without another
    runtime and another precision, nothing is replaced.

    Args:
        model: in evaluation mode, float32, on the CPU.
        name: of the model, for messages.
        size: height and width of all inputs, or None if they vary.
        runtime, device, precision: see `prepare`.
    """
    if precision == "fp16" or (precision == "fp32" and runtime.name == "torch"):
        return
    features, head = model.extract_feat, _dense_head(model)
    shape, varies = size or _EXAMPLE, size is None

    def with_head(x: Tensor) -> tuple[Any, Any]:
        maps = features(x)
        if not isinstance(maps, tuple):
            raise TypeError(f"its feature maps are a {type(maps).__name__}, not a tuple")
        return maps, head(maps)

    if head is not None:
        run = prepare(
            Network(f"{name} with its head", model, with_head, shape, varies),
            runtime,
            device,
            precision,
        )
        if run is not with_head:
            _replace(model, head, run)
            return

    alone = Network(f"backbone and neck of {name}", model, features, shape, varies)
    model.extract_feat = prepare(alone, runtime, device, precision)


def _dense_head(model: Any) -> Any:
    """Return the head that needs nothing but the feature maps; None if there is none.

    Transformers' heads need queries too.
    """
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

    heads = (getattr(model, name, None) for name in ("rpn_head", "bbox_head"))
    return next((head for head in heads if isinstance(head, BaseDenseHead)), None)


def _replace(model: Any, head: Any, run: RunNetwork) -> None:
    """Compute the head's numbers with the feature maps, and let the head find them there.

    The head is still called, so that its outputs are checked.
    """
    plain = head.forward

    def feature_maps(x: Tensor) -> FeatureMaps:
        maps, of_head = run(x)
        features = FeatureMaps(maps)
        features.of_head = of_head
        return features

    def forward(maps: Any, *others: Any, **named: Any) -> Any:
        if isinstance(maps, FeatureMaps) and not others and not named:
            return maps.of_head
        return plain(maps, *others, **named)

    model.extract_feat, head.forward = feature_maps, forward
