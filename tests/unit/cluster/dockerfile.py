"""Read the Dockerfile as a list of instructions."""

from __future__ import annotations

from dataclasses import dataclass

from tests.unit.cluster.manifests import CLUSTER


@dataclass(frozen=True, slots=True)
class Instruction:
    """Hold one step, such as `RUN` with its shell command."""

    name: str
    value: str


def instructions() -> list[Instruction]:
    """Return the steps of `cluster/Dockerfile`, with continued lines joined and comments left out."""
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    steps = text.replace("\\\n", " ").splitlines()
    return [Instruction(*step.split(maxsplit=1)) for step in steps if step.strip()]


def of_name(name: str) -> list[str]:
    """Return the values of every instruction of this name."""
    return [step.value for step in instructions() if step.name == name]
