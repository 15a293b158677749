"""Load packs: the models of a scoring, with weights, manifest, hashes and card.

Reading a pack needs no framework.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from skinbatch.config import ModelSettings, StorageSettings
from skinbatch.errors import PackError
from skinbatch.models.manifest import FILENAME, Manifest, read_manifest
from skinbatch.models.runtime.runtime import Precision
from skinbatch.models.stages import AnyStage, DetectorStage, SegmenterStage
from skinbatch.tables.names import prob_columns

SHIPPED = Path(__file__).parent / "packs"


@dataclass(frozen=True, slots=True)
class Pack:
    """Hold a pack's directory and its manifest.

    A pack is small and picklable; models are built where they run. origin: where the pack came
    from, if not from its directory.
    """

    directory: Path
    manifest: Manifest
    origin: str | None = None

    @property
    def address(self) -> str:
        """Return the pack's name on any machine: that of a shipped pack, s3://, or its directory."""
        return self.origin or str(self.directory)

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def _fetched(self) -> bool:
        return self.origin is not None and self.origin.startswith("s3://")

    @property
    def stages(self) -> dict[str, AnyStage]:
        """Return the stages by the stem of their weights file, see Manifest."""
        return self.manifest.stages

    @property
    def lacks(self) -> tuple[str, ...]:
        """Return the stages that the pack needs before it can score."""
        return tuple(stem for stem in ("segmenter", "detector") if stem not in self.stages)

    @property
    def segmenter(self) -> SegmenterStage:
        """Return the segmenter. Raises PackError if the pack has none."""
        return self.manifest.segmenter or self._lacks("segmenter")

    @property
    def detector(self) -> DetectorStage:
        """Return the detector. Raises PackError if the pack has none."""
        return self.manifest.detector or self._lacks("detector")

    def _lacks(self, stage: str) -> NoReturn:
        raise PackError(
            f"{self.directory / FILENAME}: pack `{self.name}` has no {stage}; add one: "
            f"skinbatch pack import {self.name} --stage {stage} ..., or import with --base starter"
        )

    @property
    def weights(self) -> dict[str, str]:
        """Map each stage to the recorded SHA-256 of its weights file. Fakes have none."""
        return self.manifest.weights

    @property
    def files(self) -> dict[str, str]:
        """Map the name of every file except texts to its recorded SHA-256."""
        return self.manifest.files

    def weights_file(self, stem: str) -> Path:
        """Return the path of a stage's weights."""
        return self.directory / self.manifest.weights_file(stem)

    @property
    def detector_classes(self) -> tuple[str, ...]:
        return self.detector.classes

    @property
    def prob_columns(self) -> tuple[str, ...]:
        """Return the columns of `images` that this pack's classifiers fill, for all heads."""
        columns: list[str] = []
        for stage in self.manifest.classifier:
            columns += prob_columns(stage.head, stage.classes, columns).values()
        return tuple(columns)

    @property
    def threshold(self) -> float:
        """Return the score from which a box is counted, unless the run sets another."""
        return self.detector.threshold

    def numbers(self) -> dict[str, Any]:
        """Return everything in the pack that changes numbers, as plain JSON values.

        This includes weights, architectures, preprocessing, classes, NMS and tiling, but not names,
        thresholds and texts.
        """
        self.check_complete()
        return {stem: stage.numbers() for stem, stage in sorted(self.stages.items())}

    def check_complete(self) -> None:
        """Raise PackError if the pack cannot score because a stage is missing."""
        _ = self.segmenter, self.detector

    def verify(self) -> None:
        """Hash every file.

        Raises PackError naming the first file that is missing or does not match its recorded hash.
        """
        for name, recorded in self.files.items():
            path = self.directory / name
            try:
                with path.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as e:
                raise PackError(
                    f"{path}: pack `{self.name}` needs it, and it cannot be read: {e.strerror}"
                ) from None
            if sha256 != recorded:
                raise PackError(
                    f"{path}: SHA-256 is {sha256[:12]}…, {FILENAME} records {recorded[:12]}…; the file was changed or cut off: "
                    + (
                        f"delete {self.directory}, a copy of {self.origin}"
                        if self._fetched
                        else "get it from its source again"
                    )
                )

    def precision(self, settings: ModelSettings) -> Precision:
        """Return the precision of a scoring: the setting, or else what the pack declares."""
        return settings.precision or self.manifest.precision or "fp32"

    def text(self, filename: str) -> str | None:
        """Return CARD.md or LICENSE.md, or None if the pack lacks it."""
        path = self.directory / filename
        return path.read_text(encoding="utf-8") if path.exists() else None

    def describe(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values, with what follows from it."""
        return {
            "address": self.address,
            "directory": str(self.directory),
            **self.manifest.model_dump(mode="json", exclude_none=True),
            "prob_columns": list(self.prob_columns),
            "bytes": {
                stem: path.stat().st_size
                for stem in self.weights
                if (path := self.weights_file(stem)).exists()
            },
            "card": self.text("CARD.md"),
        }

    def describe_text(self) -> str:
        """Return the same for a terminal: a block for each stage, then the licence and the card."""
        m = self.manifest
        lines = [
            f"{m.name} {m.version}: {m.description}",
            f"licence: {m.licence}",
            f"directory: {self.directory}",
        ]
        for stem, stage in self.stages.items():
            values = stage.model_dump(mode="json", exclude_none=True)
            lines += ["", stem, *(f"  {key}: {_plain(value)}" for key, value in values.items())]
        card = self.text("CARD.md")
        return "\n".join([*lines, "", card or "no card"])


def packs_folder() -> Path:
    """Return the folder of imported packs, where packs are looked up by name.

    It is SKINBATCH_PACKS, or else ~/.skinbatch/packs.
    """
    return Path(os.environ.get("SKINBATCH_PACKS") or "~/.skinbatch/packs").expanduser()


def load_pack(name_or_path: str | Path, storage: StorageSettings | None = None) -> Pack:
    """Load a pack by its name, by its directory, or from s3://bucket/prefix/NAME.

    A name is that of a shipped pack or of one in the packs folder; a directory of the same name
    needs a `/`. Only the manifest is read, but a pack on S3 is fetched whole.

    Raises PackError if the pack does not exist or is malformed.
    """
    text = str(name_or_path)
    if text.startswith("s3://"):
        from skinbatch.models.pack_cache import fetch

        uri = text.rstrip("/")
        directory = fetch(uri, storage or StorageSettings())
        return Pack(directory, read_manifest(directory), uri)
    if "/" not in text and text not in ("", ".", ".."):
        if is_shipped(text):
            return Pack(SHIPPED / text, read_manifest(SHIPPED / text), text)
        own = packs_folder() / text
        if (own / FILENAME).exists():
            return Pack(own.resolve(), read_manifest(own))
    directory = Path(text).expanduser()
    if not directory.is_dir():
        names = ", ".join(pack.name for pack in [*shipped_packs(), *own_packs()[0]]) or "none"
        raise PackError(
            f"{text}: no such pack; there are: {names}; or give the directory that holds a {FILENAME}"
        )
    return Pack(directory.resolve(), read_manifest(directory))


def is_shipped(name: str) -> bool:
    """Return whether a pack of this name comes with the package."""
    return (SHIPPED / name / FILENAME).exists()


def shipped_packs() -> list[Pack]:
    """Return the packs inside the package, by name."""
    return [
        Pack(p.parent, read_manifest(p.parent), p.parent.name)
        for p in sorted(SHIPPED.glob(f"*/{FILENAME}"))
    ]


def own_packs() -> tuple[list[Pack], list[str]]:
    """Return the packs in the packs folder, by name, and the errors of unreadable ones."""
    packs, faults = [], []
    for path in sorted(packs_folder().glob(f"[!.]*/{FILENAME}")):
        try:
            packs.append(Pack(path.parent, read_manifest(path.parent)))
        except PackError as e:
            faults.append(str(e))
    return packs, faults


def _plain(value: Any) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, list) else str(value)
