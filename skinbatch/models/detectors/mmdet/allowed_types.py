"""Check the classes in a model config.

Only classes of mmdet, mmcv, mmengine and torch, by name, and our own are allowed.
"""

from __future__ import annotations

from typing import Any

from skinbatch.errors import PackError

# The modules from which the classes of a detector may come. Left out are language models and
# trackers, which fetch or open files, and mmcv's operators that must be compiled.
MODULES = (
    *(
        f"mmdet.models.{part}."
        for part in (
            "backbones",
            "data_preprocessors",
            "dense_heads",
            "detectors",
            "layers",
            "losses",
            "necks",
        )
    ),
    *(f"mmdet.models.{part}." for part in ("roi_heads", "seg_heads", "utils")),
    *(
        f"mmdet.models.task_modules.{part}."
        for part in ("assigners", "coders", "prior_generators", "samplers")
    ),
    "mmcv.cnn.",
    "mmcv.ops.multi_scale_deform_attn.",
    "mmengine.model.",
    "torch.nn.",
    "skinbatch.models.",
)
OPENS_MORE = {
    "Detectron2Wrapper": "runs a model of detectron2",
    "KnowledgeDistillationSingleStageDetector": "executes the config of its teacher",
    "LAD": "loads the checkpoint of its teacher",
    "ATSSVLFusionHead": "fetches a language model",
    "GLIP": "fetches a language model",
    "GroundingDINO": "fetches a language model",
}
# The keys that only give the place of weights. The pack contains the weights.
STRIPPED = ("init_cfg", "pretrained", "teacher_config", "teacher_ckpt")
# Batch norms that share their statistics while training are plain ones afterwards, and need no
# process group.
NAMES_HERE = {"SyncBN": "BN", "MMSyncBN": "BN"}
# Detectors that keep nothing from a call, in themselves or in any head, neck or backbone that mmdet
# has for them. A counter-example is DDQDETR, which puts the masks of its queries into a table that
# all of its layers share.
THREADS_SHARE = (
    *(
        "ATSS",
        "CascadeRCNN",
        "FasterRCNN",
        "FCOS",
        "GFL",
        "MaskRCNN",
        "RetinaNet",
        "RTMDet",
        "TOOD",
        "VFNet",
    ),
    *("YOLOF", "YOLOV3", "YOLOX"),
)
SCOPES = ("mmdet", "mmcv", "mmengine", "torch")


def checked(value: Any, name: str) -> Any:
    """Return a copy of (a part of) a model config with plain class names and no sources of weights.

    Call `register.register()` first. name: of the part, for messages.

    Raises PackError naming part and class if the class is not from MODULES or does not exist.
    """
    if isinstance(value, list | tuple):
        return [checked(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    scope = value.get("_scope_", "mmdet")
    if scope not in SCOPES:
        raise PackError(f"{name}: `_scope_` {scope!r} imports code from outside mmdet")
    table = {
        key: checked(item, f"{name}.{key}")
        for key, item in value.items()
        if key not in STRIPPED and key != "_scope_"
    }
    if "type" in table:
        table["type"] = _class_of_part(table["type"], name)
    return table


def _class_of_part(given: Any, name: str) -> str:
    """Return the class of a part that is not looked up in a registry.

    mmcv evaluates the type of a suppression as Python, and mmdet takes region pooling from
    mmcv.ops. Only one of each is supported.
    """
    part = name.split(".")[-1]
    only = "RoIAlign" if part == "roi_layer" else "nms" if part == "nms" or given == "nms" else None
    if only is None:
        return _class(given, name)
    if str(given).rpartition(".")[2] != only:
        raise PackError(f"{name}: type {given!r}; only `{only}` is supported")
    return only


def _class(given: Any, name: str) -> str:
    """Return the name under which mmdet's registries hold the class."""
    if not isinstance(given, str):
        raise PackError(f"{name}: type {given!r} is not the name of a class")
    scope, _, plain = given.rpartition(".")
    plain = NAMES_HERE.get(plain, plain)
    if scope and scope.split(".")[0] not in SCOPES:
        raise PackError(f"{name}: type `{given}` imports code from outside mmdet")
    if plain in OPENS_MORE:
        raise PackError(f"{name}: `{plain}` {OPENS_MORE[plain]}; such a model is not supported")
    modules = [
        module for module in _modules_of(plain) if scope.split(".")[0] in ("", module.split(".")[0])
    ]
    if not modules:
        raise PackError(
            f"{name}: type `{given}` is not in mmdet, mmcv or torch; other code is not imported"
        )
    outside = [module for module in modules if not f"{module}.".startswith(MODULES)]
    if outside:
        raise PackError(
            f"{name}: type `{given}` is from `{outside[0]}`, which packs do not support"
        )
    return plain


def _modules_of(plain: str) -> list[str]:
    """Return the modules of every class or function that the registries hold under the name."""
    from mmdet.registry import MODELS, TASK_UTILS
    from mmengine.registry import MODELS as LAYERS

    registered = [registry.module_dict.get(plain) for registry in (MODELS, TASK_UTILS, LAYERS)]
    return [entry.__module__ for entry in registered if entry is not None]
