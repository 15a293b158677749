"""Register the classes from which mmdet builds models: its own and ours."""

from __future__ import annotations

import warnings

from skinbatch.models.detectors.mmdet import operators
from skinbatch.models.imports import later, without

# What mmdet and mmengine import if it is there: to follow objects in videos, and to train on many
# GPUs.
_NOT_NEEDED = ("sklearn", "torch.distributed.optim")
# What they import for drawings, lanes of roads, the training of transformers, and models that are
# spread over many GPUs.
_NEEDED_LATER = (
    "matplotlib",
    "matplotlib.colors",
    "matplotlib.patches",
    "matplotlib.pyplot",
    "scipy",
    "scipy.interpolate",
    "scipy.optimize",
    "mmengine._strategy",
    "mmengine.model.wrappers.fully_sharded_distributed",
)


def register() -> None:
    """Register mmdet's models and ours with mmdet. It is safe to call this again."""
    operators.install()
    # The call is mmdet's, and cannot be changed here.
    warnings.filterwarnings("ignore", message="torch.meshgrid")
    with without(*_NOT_NEEDED), later(*_NEEDED_LATER):
        import mmdet.models  # noqa: F401

    from skinbatch.models.detectors.mmdet import timm_backbone, yolov4  # noqa: F401
