"""Trains a detector of acne lesions on annotated photos until its minutes are over; can be stopped and goes on."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from skinbatch.errors import UsageError
from skinbatch.models.detectors.mmdet_architectures import DetectorSpec
from skinbatch.models.detectors.mmdet_detector import MMDetDetector, build_model, metainfo, normalise
from skinbatch.train.anchors import fit_pyramid
from skinbatch.train.crops import Boxes, CropRecipe, Pixels, epoch_crops
from skinbatch.train.detection_scores import ap50, best_threshold, count_mae
from skinbatch.train.voc import Annotated, read_folder, read_rgb
from skinbatch.types import Detections

WATCHED = 90
FINAL_TRAIN = 283
CLEAR_HELD_BACK = 80
PATIENCE = 5
LESION_SIDE = 26.0
"""Median of the training boxes at network scale, pixels."""
NO_BOXES = np.zeros((0, 4), np.float32)


@dataclass(frozen=True, slots=True)
class TrainRecipe:
    """batch: crops a step. lr: the peak, reached after `warmup` steps, then a cosine over the minutes. ema: decay of
    the averaged weights, which are the ones kept. evaluate_every: epochs."""

    batch: int = 4
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 150
    clip: float = 20.0
    ema: float = 0.998
    evaluate_every: int = 3
    seed: int = 0
    crops: CropRecipe = field(default_factory=CropRecipe)


RECIPES: Mapping[str, TrainRecipe] = {
    "yolox-tiny": TrainRecipe(),
    "faster-rcnn-r18": TrainRecipe(evaluate_every=2),
}


@dataclass(slots=True)
class _State:
    """What a checkpoint holds besides weights. seconds: of training so far, over all starts."""

    epoch: int = 0
    steps: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)

    def stopped_improving(self) -> bool:
        scores = [point["ap50"] for point in self.curve]
        return len(scores) > PATIENCE and max(scores[-PATIENCE:]) <= max(scores[:-PATIENCE])


def train(data: Path, work: Path, arch: str, minutes: float) -> None:
    """Trains on `data/acne04`, with clear faces of `data/celebamask` as negatives, and goes on from `work` if it can.

    Writes to work: `checkpoint.pt` every epoch, `curve.jsonl`, and at the end `detector.safetensors` (averaged weights,
    fp16) and `detector.json` (how to build it, threshold, scores, curve). Raises UsageError for what is not there.
    """
    if arch not in RECIPES:
        raise UsageError(f"no recipe to train `{arch}`; there are: {', '.join(RECIPES)}")
    work.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES[arch]
    photos = read_folder(data / "acne04" / "train")
    valid = read_folder(data / "acne04" / "valid")
    faces = sorted((data / "celebamask" / "images").glob("*.jpg"))
    spec = _spec(arch, photos)
    run = _Run(spec, recipe, work)
    run.fit(photos, faces[:-CLEAR_HELD_BACK], _spread(photos, WATCHED), _spread(valid, WATCHED), minutes * 60)
    _finish(run, photos, valid, faces[-CLEAR_HELD_BACK:])


def _spec(arch: str, photos: Sequence[Annotated]) -> DetectorSpec:
    """Lesions are 10 to 50 px wide at network scale: the deepest stages cost time and see none of them. Two cores and an
    hour teach a narrow network more, because it sees more crops. Small photos are enlarged, up to twice, so that
    lesions have the size that was taught."""
    spec = DetectorSpec(arch, ("acne",), size=512, max_upscale=2.0)
    if arch == "yolox-tiny":
        return dataclasses.replace(spec, strides=(8, 16), width=0.25, head_channels=48)
    strides = (8, 16, 32)
    anchors = fit_pyramid(_box_sizes(photos, spec), strides)
    return dataclasses.replace(spec, strides=strides, width=0.5, head_channels=64, anchors=anchors)


def _box_sizes(photos: Sequence[Annotated], spec: DetectorSpec) -> Boxes:
    """(N, 2) widths and heights of all boxes at network scale."""
    boxes = np.concatenate([photo.boxes * (spec.size / photo.long_side) for photo in photos])
    return boxes[:, 2:] - boxes[:, :2]


def _at_network_scale(pixels: Pixels, boxes: Boxes, spec: DetectorSpec) -> tuple[Pixels, Boxes]:
    height, width = pixels.shape[:2]
    scale = spec.size / max(height, width)
    size = (round(width * scale), round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=how), np.uint8), boxes * np.float32(scale)


class _Run:
    """One training: the model, its average, the optimiser, and where it is."""

    def __init__(self, spec: DetectorSpec, recipe: TrainRecipe, work: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.spec, self.recipe, self.work = spec, recipe, work
        self.model = build_model(spec).to(memory_format=torch.channels_last)
        if spec.arch.startswith("yolox"):
            start_with_boxes_of(self.model, LESION_SIDE, spec)
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(_groups(self.model, recipe.weight_decay), lr=recipe.lr)
        self.state = _State()
        self.checkpoint = work / "checkpoint.pt"
        if self.checkpoint.exists():
            self._load()

    def fit(
        self,
        photos: Sequence[Annotated],
        faces: Sequence[Path],
        watched_train: Sequence[Annotated],
        watched_valid: Sequence[Annotated],
        budget: float,
    ) -> None:
        """Epochs until `budget` seconds are used or validation has stopped improving."""
        pairs = [_at_network_scale(photo.pixels(), photo.boxes, self.spec) for photo in photos]
        clear = [_at_network_scale(read_rgb(path), NO_BOXES, self.spec)[0] for path in faces]
        while self.state.seconds < budget and not self.state.stopped_improving():
            loss = self._epoch(pairs, clear, budget)
            if self.state.epoch % self.recipe.evaluate_every == 0 or self.state.seconds >= budget:
                started = time.monotonic()
                self._evaluate(loss, watched_train, watched_valid)
                self.state.seconds += time.monotonic() - started
            self._save()

    def detector(self) -> MMDetDetector:
        """With the averaged weights, rounded as they will be stored."""
        return MMDetDetector(self.spec, {name: value.half() for name, value in self.average.items()})

    def _epoch(self, pairs: Sequence[tuple[Pixels, Boxes]], clear: Sequence[Pixels], budget: float) -> float:
        """Mean loss of one pass over the photos. A step that gives NaN ends the training."""
        started, before = time.monotonic(), self.state.seconds
        losses: list[float] = []
        batch: list[tuple[Pixels, Boxes]] = []
        self.model.train()
        for crop in epoch_crops(pairs, clear, self.recipe.crops, self.recipe.seed, self.state.epoch):
            batch.append(crop)
            if len(batch) == self.recipe.batch:
                self._set_lr(self.state.seconds / budget)
                losses.append(self._step(batch))
                batch = []
                self.state.seconds = before + time.monotonic() - started
        self.state.epoch += 1
        mean = float(np.mean(losses))
        print(f"epoch {self.state.epoch}: loss {mean:.3f}, {self.state.seconds / 60:.1f} min", flush=True)
        if not math.isfinite(mean):
            raise FloatingPointError(f"{self.work}: the loss is {mean} in epoch {self.state.epoch}; lower the lr")
        return mean

    def _step(self, batch: Sequence[tuple[Pixels, Boxes]]) -> float:
        inputs = torch.from_numpy(np.stack([normalise(pixels, self.spec) for pixels, _ in batch])).permute(0, 3, 1, 2)
        losses = self.model.loss(inputs, [_sample(pixels, boxes) for pixels, boxes in batch])
        parts = [v for name, value in losses.items() if "loss" in name for v in _as_list(value)]
        loss = torch.stack([part.sum() for part in parts]).sum()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.state.steps += 1
        self._update_average()
        return float(loss.detach())

    def _set_lr(self, progress: float) -> None:
        warm = min(1.0, (self.state.steps + 1) / self.recipe.warmup)
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, progress))) / 2
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.lr * warm * cosine

    @torch.no_grad()
    def _update_average(self) -> None:
        """Follows quickly at first, so that the random start is soon forgotten."""
        decay = min(self.recipe.ema, (1 + self.state.steps) / (10 + self.state.steps))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def _evaluate(self, loss: float, train_photos: Sequence[Annotated], valid_photos: Sequence[Annotated]) -> None:
        detector = self.detector()
        threshold, train_mae = best_threshold(_truth(train_photos), detect(detector, train_photos))
        found = detect(detector, valid_photos)
        point = {
            "epoch": float(self.state.epoch),
            "minutes": round(self.state.seconds / 60, 1),
            "loss": round(loss, 4),
            "ap50": round(ap50(_truth(valid_photos), found), 4),
            "count_mae": round(count_mae(_truth(valid_photos), found, threshold), 3),
            "train_count_mae": round(train_mae, 3),
            "threshold": threshold,
        }
        self.state.curve.append(point)
        with (self.work / "curve.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(point) + "\n")
        print(json.dumps(point), flush=True)

    def _save(self) -> None:
        fresh = self.checkpoint.with_suffix(".new")
        parts = {"model": self.model.state_dict(), "average": self.average, "optimiser": self.optimiser.state_dict()}
        torch.save(parts | {"state": dataclasses.asdict(self.state)}, fresh)
        fresh.replace(self.checkpoint)

    def _load(self) -> None:
        saved = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.average = saved["average"]
        self.optimiser.load_state_dict(saved["optimiser"])
        self.state = _State(**saved["state"])
        print(f"going on after epoch {self.state.epoch}", flush=True)


@torch.no_grad()
def start_with_boxes_of(model: Any, side: float, spec: DetectorSpec) -> None:
    """Make an untrained YOLOX predict squares of `side` pixels everywhere.

    It matches predictions with lesions by overlap. As it comes its boxes are one stride wide, hardly overlap any lesion,
    and each lesion teaches one cell; boxes of the usual size teach several from the first step.
    """
    for conv, stride in zip(model.bbox_head.multi_level_conv_reg, spec.strides or (8, 16, 32), strict=True):
        conv.bias[2:] = math.log(side / stride)


def detect(detector: MMDetDetector, photos: Sequence[Annotated]) -> list[Detections]:
    """Photos one after the other, as read from their files."""
    return [detector([photo.pixels()])[0] for photo in photos]


def _finish(run: _Run, photos: Sequence[Annotated], valid: Sequence[Annotated], clear: Sequence[Path]) -> None:
    """Weights, and the scores on all validation photos at the threshold that counts best on training photos."""
    detector = run.detector()
    chosen = _spread(photos, FINAL_TRAIN)
    threshold, train_mae = best_threshold(_truth(chosen), detect(detector, chosen))
    truth, found = _truth(valid), detect(detector, valid)
    counts = np.array([len(boxes) for boxes in truth])
    mean = float(np.mean([len(photo.boxes) for photo in photos]))
    alarms = [int((detector([read_rgb(path)])[0].scores >= threshold).sum()) for path in clear]
    metrics = {
        "valid_photos": len(valid),
        "ap50": round(ap50(truth, found), 4),
        "count_mae": round(count_mae(truth, found, threshold), 3),
        "count_mae_of_guessing_the_training_mean": round(float(np.abs(counts - mean).mean()), 3),
        "train_count_mae": round(train_mae, 3),
        "threshold_from_train_photos": len(chosen),
        "boxes_on_clear_faces": round(float(np.mean(alarms)), 3) if alarms else None,
        "clear_faces": len(clear),
    }
    weights = {name: _stored(value) for name, value in run.average.items()}
    save_file(weights, run.work / "detector.safetensors")
    state = run.state
    record = {
        "stage": "detector",
        **dataclasses.asdict(run.spec),
        "threshold": threshold,
        "metrics": metrics,
        "curve": state.curve,
        "data": {"train": len(photos), "train_boxes": sum(len(p.boxes) for p in photos), "valid": len(valid)},
        "recipe": dataclasses.asdict(run.recipe),
        "seed": run.recipe.seed,
        "epochs": state.epoch,
        "minutes": round(state.seconds / 60, 1),
        "stopped": "validation no longer improved" if state.stopped_improving() else "the time was over",
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "hardware": "2 CPU cores",
    }
    (run.work / "detector.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(metrics | {"threshold": threshold}), flush=True)


def _stored(value: Tensor) -> Tensor:
    return value.half().contiguous() if value.is_floating_point() else value.contiguous()


def _sample(pixels: Pixels, boxes: Boxes) -> Any:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    height, width = pixels.shape[:2]
    sample = DetDataSample(metainfo=metainfo((height, width), (height, width)))
    sample.gt_instances = _instances(InstanceData, boxes)
    sample.ignored_instances = _instances(InstanceData, boxes[:0])
    return sample


def _instances(kind: Any, boxes: Boxes) -> Any:
    return kind(bboxes=torch.from_numpy(boxes.copy()), labels=torch.zeros(len(boxes), dtype=torch.long))


def _as_list(value: Tensor | list[Tensor]) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _groups(model: Any, decay: float) -> list[dict[str, Any]]:
    """No decay on norms and biases."""
    plain = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": plain, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


def _spread(photos: Sequence[Annotated], number: int) -> list[Annotated]:
    """`number` photos spread evenly over the sorted names, which begin with the severity."""
    return [photos[i] for i in np.linspace(0, len(photos) - 1, min(number, len(photos))).round().astype(int)]


def _truth(photos: Sequence[Annotated]) -> list[Boxes]:
    return [photo.boxes for photo in photos]
