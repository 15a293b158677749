"""Read any mmdet config: its model, and how its test pipeline prepares a photo.

Preparation steps that cannot be reproduced are refused.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from skinbatch.errors import PackError, UsageError
from skinbatch.models.architectures import ARCHITECTURES, ENLARGES
from skinbatch.models.detectors.mmdet.allowed_types import SCOPES, checked
from skinbatch.models.detectors.mmdet.config_file import read_file
from skinbatch.models.detectors.mmdet.register import register
from skinbatch.models.detectors.mmdet.spec import DetectorSpec, ModelConfig

LOADERS = ("test_dataloader", "val_dataloader")
READ_AS_USUAL = ("LoadImageFromFile", "LoadAnnotations", "PackDetInputs")
PAD_TO = 32
# The values that mmdet takes only as tuples, which JSON does not have.
_TUPLES = ("basesize_ratio_range", "neg_iou_thr", "act_cfg")


def read_config(path: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """Return the model as plain JSON values, and the fields of a `DetectorStage` that follow.

    These parts of the config are used: `classes` of the dataset's metainfo; the larger and smaller
    side of `Resize` (`size`, `short_side`) and the grey of a `Pad` to a square in the test
    pipeline; mean, std and channel order of the data preprocessor; the IoU of the suppression.
    Score floor and box cap are the run's.

    Two things differ from mmdet: a photo that shrinks is averaged by area and not interpolated, and
    padding goes to the next multiple of 32.

    Raises:
        PackError: names the file and the line or field. The config has code that would have to be
            executed, a class from outside mmdet, a field of another type than mmdet takes, or a
            step in the test pipeline that would change numbers and is not supported
            (`keep_ratio=False`, test-time augmentation, crops).
    """
    register()
    config = read_file(path)
    try:
        _check_imports(config.get("custom_imports"))
        model = config.get("model")
        if not isinstance(model, dict) or "type" not in model:
            raise PackError("has no `model` with a `type`; is it the config of a detector?")
        model = dict(model)
        place = "model.data_preprocessor" if "data_preprocessor" in model else "data_preprocessor"
        preprocessor = _table(
            model.pop("data_preprocessor", config.get("data_preprocessor")), place
        )
        model = json.loads(json.dumps(checked(model, "model")))
        _heads(model)
        fields = _classes(config) | _sizes(_test_pipeline(config)) | _colours(preprocessor)
        place, last = _last_test_cfg(model)
        nms = _table(last.get("nms"), f"{place}.nms")
        if (iou := _number(nms, "iou_threshold", None, f"{place}.nms")) is not None:
            fields["nms_iou"] = iou
    except PackError as e:
        raise PackError(f"{path}: {e}") from None
    except (TypeError, ValueError, OverflowError) as e:
        raise PackError(f"{path}: not the config of an mmdet detector: {e}") from None
    except RecursionError:
        raise PackError(f"{path}: nested too deeply to be a config") from None
    return model, fields


def model_config(spec: DetectorSpec) -> ModelConfig:
    """Return the mmdet config of a detector.

    Raises:
        UsageError: there is no such architecture, or it does not have a setting.
        PackError: a user's model does not have the classes.
    """
    if spec.model is not None:
        return with_settings(spec.model, spec)
    named = {name: a.layers for name, a in ARCHITECTURES["detector"].items() if a.layers}
    if spec.arch not in named:
        raise UsageError(f"no detector architecture `{spec.arch}`; there are: {', '.join(named)}")
    return named[spec.arch](spec)


def with_settings(model: Mapping[str, Any], spec: DetectorSpec) -> ModelConfig:
    """Return the model with the spec's score floor, NMS IoU and box cap where its head reads them.

    Raises PackError for a class from outside mmdet, or a number of classes other than the spec's.
    """
    register()
    config = _with_tuples(checked(dict(model), "model"))
    for name, head in _heads(config):
        number = head.get("num_classes", len(spec.classes))
        if number != len(spec.classes):
            raise PackError(
                f"{name}.num_classes is {number}, and {len(spec.classes)} classes are named ({', '.join(spec.classes)}); "
                "name them all, in label order"
            )
    config["test_cfg"] = copy.deepcopy(config.get("test_cfg") or {})
    place, last = _last_test_cfg(config)
    last["score_thr"] = spec.score_floor
    if (confidence := _number(last, "conf_thr", None, place)) is not None:
        last["conf_thr"] = min(confidence, spec.score_floor)
    if last.get("nms") is not None:
        last["nms"] = {"type": "nms", "iou_threshold": spec.nms_iou}
        last["max_per_img"] = spec.max_boxes
    else:
        # The model takes the best of all its queries, and fails if it has fewer than requested.
        queries = _number(config, "num_queries", 0, "model") * len(spec.classes)
        last["max_per_img"] = min(
            spec.max_boxes, queries or _number(last, "max_per_img", spec.max_boxes, place)
        )
    return config


def _table(value: Any, name: str) -> dict[str, Any]:
    """Return a field that is a table or left out. Raises PackError naming it."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise PackError(f"{name} is {_short(value)}, not a table (a dict)")
    return value


def _list(value: Any, name: str) -> Sequence[Any]:
    """Return a field that is a list, a tuple or left out. Raises PackError naming it."""
    if not isinstance(value, list | tuple | None):
        raise PackError(f"{name} is {_short(value)}, not a list")
    return value or []


def _number(table: Mapping[str, Any], name: str, default: Any, place: str) -> Any:
    """Return a number of a table, or the default. Raises PackError naming the field."""
    value = table.get(name)
    if value is not None and not _is_number(value):
        raise PackError(f"{place}.{name} is {_short(value)}, not a number")
    return default if value is None else value


def _is_number(value: Any) -> bool:
    """Return whether a value is a number; Python also counts True as one."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_imports(custom: Any) -> None:
    imports = custom.get("imports", []) if isinstance(custom, dict) else custom
    for name in [imports] if isinstance(imports, str) else _list(imports, "custom_imports"):
        if str(name).split(".")[0] not in SCOPES:
            raise PackError(
                f"custom_imports: `{name}` is code from outside mmdet, and is not imported; if the model does not need it, "
                "remove it from the config"
            )


def _heads(model: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the heads with class names, each with its place in the config.

    A cascade has several.
    """
    place, of = "model", model
    if "roi_head" in model:
        place, of = "model.roi_head", _table(model["roi_head"], "model.roi_head")
    heads = of.get("bbox_head")
    if not isinstance(heads, dict | list):
        raise PackError(
            f"{place}.bbox_head is missing: {model['type']} gives no boxes with classes"
        )
    if isinstance(heads, dict):
        return [(f"{place}.bbox_head", heads)]
    places = [f"{place}.bbox_head[{i}]" for i in range(len(heads))]
    return [(name, _table(head, name)) for name, head in zip(places, heads, strict=True)]


def _last_test_cfg(model: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the test_cfg of the stage that gives the boxes, with its place in the config."""
    test = _table(model.get("test_cfg"), "model.test_cfg")
    if "rcnn" not in test:
        return "model.test_cfg", test
    return "model.test_cfg.rcnn", _table(test["rcnn"], "model.test_cfg.rcnn")


def _with_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_tuples(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: tuple(item) if key in _TUPLES and isinstance(item, list) else _with_tuples(item)
        for key, item in value.items()
    }


def _datasets(
    config: Mapping[str, Any], loaders: Sequence[str]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the loaders' datasets, each with its place.

    The datasets inside wrappers (RepeatDataset) are included.
    """
    datasets: list[tuple[str, Mapping[str, Any]]] = []
    for loader in loaders:
        name = f"{loader}.dataset"
        dataset = _table(_table(config.get(loader), loader).get("dataset"), name)
        while dataset:
            datasets.append((name, dataset))
            name += ".dataset"
            dataset = _table(dataset.get("dataset"), name)
    return datasets


def _classes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes as a field; empty if the config leaves them to its dataset's code."""
    datasets = _datasets(config, (*LOADERS, "train_dataloader"))
    for info in (*(dataset.get("metainfo") for _, dataset in datasets), config.get("metainfo")):
        if (
            not isinstance(info, dict)
            or (classes := info.get("classes", info.get("CLASSES"))) is None
        ):
            continue
        if not isinstance(classes, list | tuple) or not all(
            isinstance(name, str) for name in classes
        ):
            raise PackError(
                f"metainfo.classes is {_short(classes)}, not a list of names; one class is ('acne',)"
            )
        return {"classes": list(classes)}
    return {}


def _test_pipeline(config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    pipelines = [
        (f"{name}.pipeline", dataset.get("pipeline"))
        for name, dataset in _datasets(config, LOADERS)
    ]
    for name, pipeline in (*pipelines, ("test_pipeline", config.get("test_pipeline"))):
        if steps := _list(pipeline, name):
            return [_table(step, f"{name}[{i}]") for i, step in enumerate(steps)]
    raise PackError(
        "no test pipeline, neither in test_dataloader nor as `test_pipeline`: how photos are resized is not known; add "
        "test_pipeline = [dict(type='Resize', scale=(640, 640), keep_ratio=True)]"
    )


def _sizes(pipeline: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for step in pipeline:
        kind = str(step.get("type", "")).rpartition(".")[2]
        if kind == "Resize":
            fields |= _resize(step)
        elif kind == "Pad":
            fields |= _pad(step, fields)
        elif kind not in READ_AS_USUAL:
            _step_refused(kind, "is not supported here")
        elif step.get("color_type", "color") != "color":
            _step_refused(kind, f"color_type {step['color_type']!r}: photos are read in colour")
    if "size" not in fields:
        _step_refused("Resize", "is missing: every photo would keep its own size")
    return fields


def _resize(step: Mapping[str, Any]) -> dict[str, Any]:
    if not step.get("keep_ratio", False):
        _step_refused("Resize", "keep_ratio is not True: proportions are always kept here")
    if step.get("interpolation", "bilinear") != "bilinear" or step.get("backend", "cv2") != "cv2":
        _step_refused("Resize", "interpolation is always bilinear, by cv2")
    scale = step.get("scale")
    sides = (scale, scale) if _is_whole(scale) else scale
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(map(_is_whole, sides)):
        _step_refused("Resize", f"scale {_short(scale)} is not (width, height)")
    size, short = max(sides), min(sides)
    return {"size": size, "max_upscale": ENLARGES} | (
        {"short_side": short} if short != size else {}
    )


def _pad(step: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the padding to a square of the size, in grey. The default is black."""
    value = step.get("pad_val", 0)
    value = value.get("img", 0) if isinstance(value, dict) else value
    greys = value if isinstance(value, list | tuple) else [value]
    side = fields.get("size")
    square = step.get("pad_to_square", False) or step.get("size") in ((side, side), [side, side])
    if not square or side is None or "short_side" in fields:
        _step_refused("Pad", "does not pad to the square that `Resize` fits the photo into")
    if not greys or not all(_is_number(grey) and grey == greys[0] for grey in greys):
        _step_refused("Pad", f"pad_val {_short(value)} is not a grey")
    return {"padding": float(greys[0])}


def _colours(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return mean and std per RGB channel, and the order of channels for the network.

    mmdet reads photos as BGR. given: the data preprocessor.
    """
    kind = str(given.get("type", "DetDataPreprocessor")).rpartition(".")[2]
    if kind != "DetDataPreprocessor":
        raise PackError(
            f"data_preprocessor: `{kind}` is not supported here, only DetDataPreprocessor"
        )
    divisor = given.get("pad_size_divisor", 1)
    if given.get("pad_value", 0) != 0 or not _is_whole(divisor) or divisor < 1 or PAD_TO % divisor:
        raise PackError(
            f"data_preprocessor: must pad with 0, the mean colour, to a multiple of {PAD_TO}"
        )
    bgr = not (given.get("bgr_to_rgb", False) or given.get("rgb_to_bgr", False))
    mean, std = (_triple(given, name, default) for name, default in (("mean", 0.0), ("std", 1.0)))
    if min(std) <= 0:
        raise PackError(f"data_preprocessor.std is {std}; it must be over 0")
    return {"mean": mean[::-1] if bgr else mean, "std": std[::-1] if bgr else std, "bgr": bgr}


def _triple(given: Mapping[str, Any], name: str, default: float) -> list[float]:
    values = given.get(name)
    if values is None:
        return [default] * 3
    if not isinstance(values, list | tuple) or not all(map(_is_number, values)):
        raise PackError(f"data_preprocessor.{name} is {_short(values)}, not a list of numbers")
    if len(values) != 3:
        raise PackError(f"data_preprocessor.{name} has {len(values)} channels; photos have 3")
    return [float(value) for value in values]


def _step_refused(kind: str, why: str) -> NoReturn:
    raise PackError(f"test pipeline: `{kind}`: {why}; ignoring it would change numbers unnoticed")
