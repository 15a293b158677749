"""Run mmdet's detectors: pixels in, boxes in those pixels out."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.errors import ModelOutputError, PackError, UsageError
from skinbatch.models.detectors.mmdet.allowed_types import THREADS_SHARE
from skinbatch.models.detectors.mmdet.feature_maps import run_with
from skinbatch.models.detectors.mmdet.register import register
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.detectors.mmdet.user_config import model_config
from skinbatch.models.folding import example, fold_batch_norms
from skinbatch.models.preprocess import channel_table, look_up
from skinbatch.models.protocols import InputKind
from skinbatch.models.runtime.runtime import Precision, Runtime
from skinbatch.models.weights import load_weights
from skinbatch.types import Detections

Shape = tuple[int, int]

PAD_TO = 32


class MMDetDetector:
    """Implement the `Detector` protocol with one mmdet model.

    Several threads may call it at once. A user's model that is not known to support that
    (THREADS_SHARE) is run for one thread after the other.

    Photos whose padded network inputs have the same shape are run together, and no photo's input
    depends on the others, so the batch does not change the boxes. On a CPU, photos of several
    sizes, such as crops, are run one by one unless they are padded to one square. That is as fast,
    and every further combination of number and shape would need its own compiled layers and
    intermediate results, which fragment the memory.
    """

    def __init__(
        self,
        spec: DetectorSpec,
        state_dict: Mapping[str, Tensor],
        *,
        where: str = "the weights",
        device: str = "cpu",
        precision: Precision = "fp32",
        runtime: Runtime | None = None,
    ) -> None:
        """Build the model and load its weights.

        Args:
            spec: description of the detector.
            state_dict: float tensors of any precision, by mmdet's names.
            where: name of the weights file in errors.
            device: `cpu`, `cuda`, `cuda:1`.
            precision: the lowest that may be used; `fp16` needs a GPU.
            runtime: how the network is run; None for torch.

        Raises:
            PackError: names the layer that does not fit the architecture.
            UsageError: fp16 was requested without a GPU.
        """
        if precision == "fp16" and not device.startswith("cuda"):
            raise UsageError(
                f"precision fp16 needs a GPU, this worker has {device}; set precision = 'fp32' in [model]"
            )
        self.spec = spec
        self.classes: tuple[str, ...] = spec.classes
        self.input: InputKind = spec.input
        self._device = torch.device(device)
        self._fp16 = precision == "fp16"
        self._table = channel_table(lambda pixels: normalise(pixels, spec))
        with torch.random.fork_rng(devices=[]):  # the random first weights are replaced
            self.model = build_model(spec)
        shared = spec.model is None or spec.model["type"] in THREADS_SHARE
        self._turn = contextlib.nullcontext() if shared else threading.Lock()
        test = model_config(spec)["test_cfg"]
        self._cap = min(spec.max_boxes, test.get("rcnn", test).get("max_per_img", spec.max_boxes))
        number = f"{len(spec.classes)} class{'es' if len(spec.classes) > 1 else ''}"
        load_weights(self.model, state_dict, f"{where}: detector `{spec.arch}` of {number}")
        without_masks(self.model)
        self.model.eval()
        if shared:
            fold_batch_norms(self.model, self.run_example)
        size = (spec.size, spec.size) if spec.padding is not None else None
        run_with(
            self.model, f"detector `{spec.arch}`", size, runtime or Runtime(), device, precision
        )
        self.model.to(self._device, memory_format=torch.channels_last)
        for head in _heads(self.model):
            head.register_forward_hook(self._check)

    def run_example(self) -> Any:
        """Return the model's output for an example, as folding and rounding need it.

        It is not yet turned into boxes.
        """
        maps = self.model.extract_feat(example(256, 256))
        head = getattr(self.model, "bbox_head", None)
        return (maps, head(maps)) if head is not None else maps

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Return the boxes of each photo in pixels of its array, clipped to it, none empty.

        photos: (H, W, 3) uint8 RGB each, of any size.

        Raises ModelOutputError if the model gives NaN or infinite numbers for any photo of the
        batch.
        """
        prepared = [at_network_scale(photo, self.spec) for photo in photos]
        groups: dict[Shape, list[int]] = defaultdict(list)
        for index, (pixels, _) in enumerate(prepared):
            groups[self._padded(pixels)].append(index)
        sizes = {photo.shape for photo in photos}
        uniform = self._device.type != "cpu" or self.spec.padding is not None or len(sizes) == 1
        detections: dict[int, Detections] = {}
        for shape, together in groups.items():
            most = len(together) if uniform else 1
            for first in range(0, len(together), most):
                indices = together[first : first + most]
                results = self._run([prepared[i] for i in indices], shape)
                for i, result in zip(indices, results, strict=True):
                    detections[i] = self._boxes(result, photos[i].shape)
        return [detections[i] for i in range(len(photos))]

    def _padded(self, pixels: NDArray[np.uint8]) -> Shape:
        if self.spec.padding is not None:
            return self.spec.size, self.spec.size
        height, width = pixels.shape[:2]
        return -(-height // PAD_TO) * PAD_TO, -(-width // PAD_TO) * PAD_TO

    @torch.inference_mode()
    def _run(
        self, prepared: Sequence[tuple[NDArray[np.uint8], tuple[float, float]]], shape: Shape
    ) -> list[Any]:
        from mmdet.structures import DetDataSample

        batch = np.empty((len(prepared), *shape, 3), np.float32)
        batch[:] = padding(self.spec)
        samples = []
        for row, (pixels, scale) in enumerate(prepared):
            height, width = pixels.shape[:2]
            if self.spec.bgr:
                pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)
            look_up(pixels, self._table, batch[row, :height, :width])
            samples.append(DetDataSample(metainfo=metainfo((height, width), shape, scale)))
        inputs = torch.from_numpy(batch).permute(0, 3, 1, 2).to(self._device)
        with (
            self._turn,
            torch.autocast("cuda", torch.float16) if self._fp16 else contextlib.nullcontext(),
        ):
            return [
                sample.pred_instances
                for sample in self.model.predict(inputs, samples, rescale=True)
            ]

    def _boxes(self, result: Any, shape: tuple[int, ...]) -> Detections:
        """Return the best `max_boxes`. shape: of the photo."""
        scores = result.scores.float().cpu().numpy()
        xyxy = result.bboxes.float().cpu().numpy()
        height, width = shape[:2]
        xyxy = np.clip(xyxy, 0, np.array([width, height, width, height], np.float32))
        keep = (
            (xyxy[:, 2] > xyxy[:, 0])
            & (xyxy[:, 3] > xyxy[:, 1])
            & (scores >= self.spec.score_floor)
        )
        order = np.flatnonzero(keep)[np.argsort(-scores[keep], kind="stable")][
            : self.spec.max_boxes
        ]
        return Detections(
            xyxy=xyxy[order].astype(np.float32),
            scores=scores[order].astype(np.float32),
            labels=result.labels.cpu().numpy()[order].astype(np.int64),
            saturated=int((scores >= self.spec.score_floor).sum()) >= self._cap,
        )

    def _check(self, module: nn.Module, inputs: object, outputs: object) -> None:
        """Check the outputs of heads, because mmdet silently drops boxes whose score is NaN."""
        if not all(bool(torch.isfinite(tensor).all()) for tensor in _tensors(outputs)):
            where = type(module).__name__
            raise ModelOutputError(
                f"detector `{self.spec.arch}` gave NaN or infinite numbers ({where})"
            )


def build_model(spec: DetectorSpec, *, initialise: bool = True) -> Any:
    """Return the mmdet model of a spec, without showing mmdet's log.

    initialise: fill it with random weights, as mmdet does.

    Raises:
        UsageError: the architecture does not have a setting.
        PackError: a user's config does not work.
    """
    register()
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope

    MMLogger.get_current_instance().setLevel("WARNING")
    config = ConfigDict(model_config(spec))
    try:
        # mmcv looks there for mmdet's own layers.
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(config)
    except Exception as e:
        if spec.model is None:
            raise
        # A user's config may be wrong in any way, and mmdet's classes then fail in any way.
        raise PackError(
            f"mmdet cannot build `{config.type}` from its config: {type(e).__name__}: {e}"
        ) from None
    for head in _heads(model):
        # mmdet 3.2 and later read the channels of the loss from every head. SSD's loss is a
        # function and has none.
        if not hasattr(head, "loss_cls"):
            head.loss_cls = None
    if initialise:
        model.init_weights()
    return model


def without_masks(model: Any) -> None:
    """Remove the mask head of a Mask R-CNN.

    Its masks would be drawn at full size and thrown away.
    """
    roi_head = getattr(model, "roi_head", None)
    if roi_head is not None and getattr(roi_head, "with_mask", False):
        roi_head.mask_head = None


def at_network_scale(
    photo: NDArray[np.uint8], spec: DetectorSpec
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Return the photo (H, W, 3) as large as the network sees it, and that scale by x and y.

    The two scales differ by rounding to whole pixels.
    """
    height, width = photo.shape[:2]
    scale = network_scale(width, height, spec)
    new_h, new_w = max(1, round(height * scale)), max(1, round(width * scale))
    if (new_h, new_w) == (height, width):
        return photo, (1.0, 1.0)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    pixels = np.asarray(cv2.resize(photo, (new_w, new_h), interpolation=how), np.uint8)
    return pixels, (new_w / width, new_h / height)


def network_scale(width: float, height: float, spec: DetectorSpec) -> float:
    """Return pixels of the network's input per pixel of a photo of that size."""
    short = (spec.short_side or spec.size) / min(height, width)
    return min(spec.size / max(height, width), short, spec.max_upscale)


def normalise(pixels: NDArray[np.uint8], spec: DetectorSpec) -> NDArray[np.float32]:
    """Return (H, W, 3) float32 in the network's channel order. pixels: uint8 RGB."""
    return _normalised(pixels.astype(np.float32), spec)


def _normalised(pixels: NDArray[np.float32], spec: DetectorSpec) -> NDArray[np.float32]:
    values = pixels - np.array(spec.mean, np.float32)
    values *= np.array([1 / std for std in spec.std], np.float32)
    return np.asarray(values[..., ::-1] if spec.bgr else values, np.float32)


def padding(spec: DetectorSpec) -> NDArray[np.float32]:
    """Return (3,) float32, the fill of the input around a photo; 0 is the mean colour."""
    if spec.padding is None:
        return np.zeros(3, np.float32)
    grey = np.full((1, 1, 3), spec.padding, np.float32)
    return _normalised(grey, spec)[0, 0]


def metainfo(
    image: Shape, padded: Shape, scale: tuple[float, float] = (1.0, 1.0)
) -> dict[str, Any]:
    """Return the description of an input for mmdet.

    image, padded: (height, width). scale: x, y from photo to input.
    """
    return {
        "img_shape": image,
        "ori_shape": image,
        "pad_shape": padded,
        "batch_input_shape": padded,
        "scale_factor": scale,
    }


def _heads(model: nn.Module) -> list[Any]:
    """Return the modules whose outputs become scores and boxes.

    They are the head of proposals, those of a cascade, and the last one.
    """
    return [
        module for module in model.modules() if callable(getattr(module, "predict_by_feat", None))
    ]


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return _tensors(list(value.values()))
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return []
