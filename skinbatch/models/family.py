"""Define what the code of a family of architectures does: build models, and recognise weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar

from skinbatch.config import ModelSettings
from skinbatch.models.architectures import Architecture
from skinbatch.models.findings import Recognised
from skinbatch.models.runtime.runtime import Precision, Runtime
from skinbatch.models.stages import AnyStage

Stage = TypeVar("Stage", bound=AnyStage)
Model = TypeVar("Model", covariant=True)
MakeStage = Callable[[Mapping[str, Any]], AnyStage]


class TorchOptions(TypedDict):
    """Hold the arguments that every torch model takes."""

    where: str
    device: str
    precision: Precision
    runtime: Runtime | None


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Describe where and how a model runs.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1`.
        settings: what changes its numbers.
        runtime: how its network is run; None for torch.
    """

    device: str
    settings: ModelSettings
    runtime: Runtime | None = None

    def for_torch(self, weights: Path) -> TorchOptions:
        """Return the same as arguments of a torch model. weights: names it in errors."""
        return {
            "where": str(weights),
            "device": self.device,
            "precision": self.settings.precision or "fp32",
            "runtime": self.runtime,
        }


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """Describe a weights file whose settings are to be recognised.

    Attributes:
        path: the file.
        architecture: of its network.
        given: fields of the stage that the user set; they override those of the file.
        make: makes a stage of fields, completed by assumed ones.
        prefix: the beginning of the network's names, see `find_network`.
        configs: configs in another format than TOML.
        directory: the pack's new folder, for files beside the weights.
    """

    path: Path
    architecture: Architecture
    given: Mapping[str, Any]
    make: MakeStage
    prefix: str | None
    configs: Sequence[Path]
    directory: Path


def plain_defaults(architecture: Architecture, backbone: str | None) -> dict[str, Any]:
    """Return the defaults of an architecture. backbone: unused, see Family."""
    return dict(architecture.defaults)


@dataclass(frozen=True, slots=True)
class Family(Generic[Stage, Model]):
    """Hold the functions of a family.

    Attributes:
        build: makes the model of a stage from its weights file.
        recognise: finds the settings of a stage in a weights file; None for the fakes.
        defaults: returns the fields of a stage that go with an architecture, and with the name of a
            network in timm if the architecture takes one.
    """

    build: Callable[[Stage, Path, BuildOptions], Model]
    recognise: Callable[[ImportedFile], Recognised] | None = None
    defaults: Callable[[Architecture, str | None], dict[str, Any]] = plain_defaults
