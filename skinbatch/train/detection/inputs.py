"""Turn a loader's batch into mmdet's samples: on the device, normalised."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor

from skinbatch.models.detectors.mmdet.detector import metainfo
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.train.detection.loader import Batch


class NetworkInputs(BaseDataPreprocessor):
    """Prepare batches. The model's state dict contains nothing of it."""

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(non_blocking=True)
        self._bgr = spec.bgr
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, data: Batch, training: bool = False) -> dict[str, Any]:
        """Prepare photos as MMDetDetector does for the same network."""
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        batch = self.cast_data(data)
        inputs = (batch["pixels"].float() - self.mean) / self.std
        if self._bgr:
            inputs = inputs.flip(1)
        shape = (inputs.shape[2], inputs.shape[3])
        samples = []
        counts = data["counts"].tolist()
        for boxes, labels in zip(
            batch["boxes"].split(counts), batch["labels"].split(counts), strict=True
        ):
            sample = DetDataSample(metainfo=metainfo(shape, shape))
            sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
            sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=labels[:0])
            samples.append(sample)
        return {"inputs": inputs, "data_samples": samples}
