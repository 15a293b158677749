"""Describe what travels to a worker and back: small, picklable values.

Pixels never leave the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from skinbatch.config import Config
from skinbatch.types import DataFile, ImageRef, Receipt, Status, WorkUnit
from skinbatch.unit_id import UnitId


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """Hold what all units of a run have in common. A worker builds its models and stores from it.

    metadata: text that every data file carries. threads: cores that the worker may use. gpu: the
    worker has a GPU, whole or in part. units: how many there are to score when the workers are
    started. taken: stages whose results may be taken from the earlier scoring that assignments
    name.
    """

    fingerprint: str
    destination: str
    config: Config
    classes: tuple[str, ...]
    prob_columns: tuple[str, ...]
    metadata: Mapping[str, str]
    threads: int = 1
    gpu: bool = False
    units: int | None = None
    taken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reuse:
    """Name one older receipt's tables, from which rows of unchanged photos are read.

    masks is None without --save-masks.
    """

    images: DataFile
    boxes: DataFile
    masks: DataFile | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """Describe one attempt at a unit.

    Attributes:
        whole_sha256: inputs of the planned unit that `unit` is, or is a half of.
        generation: rises with each time that a unit with these inputs is scored again.
        reuse: tables of this scoring in which rows of unchanged photos may be.
        reuse_ok_only: copy only rows that are `ok`, for a retry.
        again: image_ids, as in the tables, that are scored again; every other older row is copied,
            whatever its status. None: reuse_ok_only decides.
        request: as in Receipt.
        earlier: tables of an earlier scoring, from which results of unchanged stages are taken.
        verdict: the unit is one photo that has killed its workers, and its row gets this status and
            error without being decoded.
        unread: for a verdict, the shard is not read either, not even for the member's name.
    """

    unit: WorkUnit
    whole_sha256: str
    generation: int = 1
    reuse: tuple[Reuse, ...] = ()
    reuse_ok_only: bool = False
    again: frozenset[str] | None = None
    request: str | None = None
    earlier: tuple[Reuse, ...] = ()
    verdict: tuple[Status, str] | None = None
    unread: bool = False

    @property
    def is_half(self) -> bool:
        return UnitId(self.unit.unit_id).is_half


@dataclass(frozen=True, slots=True)
class UnitDone:
    """Report that the unit is committed.

    Attributes:
        receipt: None if no photo was left.
        changed: photos that were read in another version than planned, as read.
        vanished: image_ids that are gone. Neither they nor changed photos make the unit fail.
        skipped: number of members that are no photos, by ending.
        failed: number of rows of this attempt that are not ok, by status, without copied rows.
        reasons: the most common of their statuses and errors, without the photos' names.
        failures: the first 100 of those rows, for the log: image_id, status, error.
        notes: reasons why stages were run whose results should have been taken.
        traffic: see storage.traffic.
        gpu_memory: most bytes of GPU memory that the worker has reserved so far; 0 without a GPU.
        gpu_card: bytes of memory of the worker's whole GPU; 0 without one.
    """

    receipt: Receipt | None
    changed: tuple[ImageRef, ...] = ()
    vanished: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()
    traffic: Mapping[str, int] = field(default_factory=dict)
    gpu_memory: int = 0
    gpu_card: int = 0


@dataclass(frozen=True, slots=True)
class UnitFailed:
    """Report that nothing is committed.

    kind: `store` is an outage; the unit is tried again. `forbidden` means that access is refused,
    and stops the run. `drift` means that the shard, or photos of a half, changed while they were
    read; they are planned again. `memory` ran out, which counts as if the worker had died of it.
    `defect` is a bug in skinbatch.
    """

    kind: Literal["store", "forbidden", "drift", "memory", "defect"]
    message: str
    changed: tuple[ImageRef, ...] = ()
    vanished: tuple[str, ...] = ()
    traffic: Mapping[str, int] = field(default_factory=dict)


Outcome = UnitDone | UnitFailed
