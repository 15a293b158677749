"""Segment skin, nose and background with BiSeNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skinbatch.errors import ModelOutputError
from skinbatch.models.folding import example, fold_batch_norms
from skinbatch.models.preprocess import Normalisation, fitted, pad_to_square
from skinbatch.models.runtime.network import Network, prepare
from skinbatch.models.runtime.runtime import Precision, Runtime
from skinbatch.models.segmenters.bisenet import AUXILIARY, BiSeNet
from skinbatch.models.weights import load_weights


class BiSeNetSegmenter:
    """Implement the `Segmenter` protocol with BiSeNet.

    Every photo becomes a square of one size, whatever the batch.
    """

    def __init__(
        self,
        arch: str,
        classes: Sequence[str],
        weights: Mapping[str, torch.Tensor],
        *,
        where: str = "weights",
        size: int = 256,
        normalisation: Normalisation | None = None,
        spatial: Literal["path", "context"] = "path",
        align_corners: bool = False,
        device: str = "cpu",
        precision: Precision = "fp32",
        runtime: Runtime | None = None,
    ) -> None:
        """Build the network and load its weights.

        The auxiliary heads are not built; the weights may have them or not.

        Args:
            arch: see BiSeNet.
            classes: names in label order.
            weights: tensors by layer.
            where: name of the weights in errors.
            size: side of the network's square input in pixels, a multiple of 32.
            normalisation: scaling of pixels; None for ImageNet's.
            spatial, align_corners: see BiSeNet.
            device: `cpu`, `cuda`, `cuda:1`.
            precision: the lowest that may be used; `fp16` needs a GPU.
            runtime: how the network is run; None for torch.

        Raises:
            PackError: names the first other layer that does not fit.
        """
        self.classes = tuple(classes)
        self.arch = arch
        self.size = size
        self._normalisation = normalisation or Normalisation()
        self._device = torch.device(device)
        self._dtype = torch.float16 if precision == "fp16" else torch.float32
        self.network = BiSeNet(
            arch, len(self.classes), spatial=spatial, align_corners=align_corners, auxiliary=False
        )
        used = {name: value for name, value in weights.items() if not name.startswith(AUXILIARY)}
        load_weights(self.network, used, where)
        network = self.network.eval()
        fold_batch_norms(network, self.run_example)
        seen = Network(f"segmenter `{arch}`", network, network.coarse, (size, size))
        self._coarse = prepare(seen, runtime or Runtime(), device, precision)
        network.to(self._device, self._dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run_example(self) -> Tensor:
        """Return the network's output for an example, as folding and rounding need it."""
        return self.network.coarse(example(64, 64))

    @torch.inference_mode()
    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Return a label map for each photo, see Segmenter.

        Raises ModelOutputError if the network gives NaN or infinite numbers.
        """
        if not photos:
            return []
        squares, extents = zip(
            *(pad_to_square(p, self.size, self._normalisation.fill) for p in photos), strict=True
        )
        x = self._normalisation.tensor(squares).to(self._device, self._dtype)
        coarse = self._coarse(x)
        # There are 64 times fewer numbers before enlarging, and interpolation makes nothing
        # infinite.
        if not torch.isfinite(coarse).all():
            raise ModelOutputError(f"segmenter `{self.arch}` gave NaN or infinite numbers")
        # With the classes of a pixel beside each other, argmax takes a fifteenth of the time.
        coarse = coarse.contiguous(memory_format=torch.channels_last)
        maps = self.network.enlarge(coarse, x).argmax(1).to(torch.uint8).cpu().numpy()
        return [np.ascontiguousarray(m[:h, :w]) for m, (h, w) in zip(maps, extents, strict=True)]

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (h, w) of the label map of a photo, see Segmenter."""
        return fitted(height, width, self.size)
