"""Report networks that OpenVINO does not run, so that nothing changes in silence."""

from __future__ import annotations

import logging
from types import ModuleType

from skinbatch.models.runtime.runtime import Runtime

_MOST_TEXT = 300
log = logging.getLogger(__name__)


class Unfit(Exception):
    """Give the reason why a network does not run on OpenVINO.

    expected: the machine is the reason, not the network.
    """

    def __init__(self, reason: str, *, expected: bool = False) -> None:
        super().__init__(reason)
        self.expected = expected

    def tell(self, network: str, runtime: Runtime, instead: str) -> None:
        """Log the reason.

        It is a warning unless `auto` met a machine on which OpenVINO cannot run.
        """
        level = logging.INFO if self.expected and runtime.name == "auto" else logging.WARNING
        log.log(level, "%s runs on %s, not on OpenVINO: %s", network, instead, self)


def load_openvino(device: str) -> ModuleType:
    """Return the module that runs networks on OpenVINO.

    Raises Unfit if this machine lacks OpenVINO, or if the device is a GPU.
    """
    if device != "cpu":
        raise Unfit(f"OpenVINO is for CPUs, and this worker has {device}", expected=True)
    try:
        from skinbatch.models.runtime import openvino_runtime
    except ImportError as e:
        raise Unfit(f"it cannot be imported ({e}); pip install openvino", expected=True) from None
    return openvino_runtime


def first_line(error: Exception) -> str:
    """Return the class of an error and its message on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_MOST_TEXT]}"
