"""Add a stage to a pack, on this disk or on S3.

The new pack is made whole beside the old one, and then takes its place.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from skinbatch.config import StorageSettings
from skinbatch.errors import NotFoundError, PackError, UsageError
from skinbatch.models.card import UNSTATED, write_texts
from skinbatch.models.findings import Finding
from skinbatch.models.importing import Import, import_stage
from skinbatch.models.manifest import (
    DETECTOR_CONFIG,
    FILENAME,
    NAME,
    TEXTS,
    Manifest,
    read_manifest,
    write_manifest,
)
from skinbatch.models.pack import Pack, is_shipped, load_pack, packs_folder
from skinbatch.models.stages import AnyStage, ClassifierStage, DetectorStage, SegmenterStage
from skinbatch.storage.locate import is_s3, open_store
from skinbatch.storage.store import TEMPORARY


def add_stage(
    name: str,
    request: Import,
    *,
    dest: str | None = None,
    base: str | None = None,
    licence: str | None = None,
    storage: StorageSettings | None = None,
) -> Pack:
    """Add a stage as `grow_pack` does, and return the pack alone."""
    return grow_pack(name, request, dest=dest, base=base, licence=licence, storage=storage)[0]


def grow_pack(
    name: str,
    request: Import,
    *,
    dest: str | None = None,
    base: str | None = None,
    licence: str | None = None,
    storage: StorageSettings | None = None,
) -> tuple[Pack, tuple[Finding, ...]]:
    """Import a stage into pack `DEST/NAME`.

    A pack that does not exist is made. A segmenter or detector replaces the pack's own, and a
    classifier replaces the one of the same head or is added.

    Args:
        name: name of the pack.
        request: the weights to import and their settings.
        dest: a folder or s3://bucket/prefix; None for the packs folder.
        base: a pack that supplies the stages that are missing.
        licence: licence of the stage.
        storage: settings for S3.

    Returns:
        The pack, and what the import found out about the weights.

    Raises:
        UsageError, PackError: before the pack is touched.
    """
    storage = storage or StorageSettings()
    if not NAME.fullmatch(name):
        raise UsageError(
            f"`{name}` is not a valid pack name: use letters, digits, `.`, `_`, `-`, and begin with a letter or digit"
        )
    if is_shipped(name):
        raise UsageError(
            f"pack `{name}` comes with skinbatch and cannot be changed; choose another name, and add --base {name}"
        )
    address = f"{(dest or str(packs_folder())).rstrip('/')}/{name}"
    filler = load_pack(base, storage) if base is not None else None
    beside = _beside(address)
    with (
        _one_at_a_time(address, beside),
        tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=beside) as folder,
    ):
        old = _existing(address, storage)
        made = Path(folder) / "pack"
        made.mkdir()
        stage, findings = import_stage(request, made)
        if licence is not None:
            stage = stage.model_copy(update={"licence": licence})
        manifest = _grown(name, old, filler, stage)
        grown = Pack(made, manifest)
        for source in (old, filler):
            if source is not None:
                _copy_missing(source, grown)
        write_manifest(manifest, made)
        write_texts(grown, old, filler)
        if read_manifest(made) != manifest:
            raise PackError(
                f"{address}: {FILENAME} cannot be read back as it was written; the old pack is untouched"
            )
        grown.verify()
        if is_s3(address):
            _upload(grown, address, storage)
        else:
            _swap(made, Path(address).expanduser())
    return load_pack(address, storage), (*findings, *_precision_lost(old, filler))


def _precision_lost(old: Pack | None, base: Pack | None) -> Iterator[Finding]:
    """Yield a finding for each pack whose declared precision the new pack does not have."""
    for pack in (old, base):
        if pack is not None and (declared := pack.manifest.precision) not in (None, "fp32"):
            source = f"pack `{pack.name}` was measured in {declared} with other stages; set `precision` in {FILENAME}"
            yield Finding("precision", "fp32", source)


@contextmanager
def _one_at_a_time(address: str, beside: Path | None) -> Iterator[None]:
    """Let one import at a time into a local pack, so that two cannot lose each other's stage.

    On S3 nothing keeps two machines apart.
    """
    if beside is None:
        yield
        return
    with FileLock(beside / f".{Path(address).name}.lock"):
        yield


def _existing(address: str, storage: StorageSettings) -> Pack | None:
    if is_s3(address):
        try:
            open_store(address, storage).head(FILENAME)
        except NotFoundError:
            return None
        return load_pack(address, storage)
    directory = Path(address).expanduser()
    if directory.exists() and not (directory / FILENAME).exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} exists and is not a pack; choose another name or --dest")
    return load_pack(directory.resolve()) if (directory / FILENAME).exists() else None


def _beside(address: str) -> Path | None:
    """Return the folder that the pack is in, so that it can be renamed into place; None for S3."""
    if is_s3(address):
        return None
    parent = Path(address).expanduser().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(
            f"{parent}: cannot be written: {e.strerror}; choose another --dest"
        ) from None
    return parent


def _grown(name: str, old: Pack | None, base: Pack | None, stage: AnyStage) -> Manifest:
    """Return the manifest with the new stage; `base` supplies what is still missing."""
    have = old.manifest if old else None
    fill = base.manifest if base else None
    segmenter = have.segmenter if have else None
    detector = have.detector if have else None
    if isinstance(stage, SegmenterStage):
        segmenter = stage
    if isinstance(stage, DetectorStage):
        detector = stage
    classifiers = {c.head: c for c in (have.classifier if have else ())}
    if isinstance(stage, ClassifierStage):
        classifiers[stage.head] = stage
    if fill is not None:
        if segmenter is None and fill.segmenter is not None:
            segmenter = fill.segmenter.model_copy(
                update={"licence": fill.segmenter.licence or fill.licence}
            )
        if detector is None and fill.detector is not None:
            detector = fill.detector.model_copy(
                update={"licence": fill.detector.licence or fill.licence}
            )
        if not classifiers:
            classifiers = {
                c.head: c.model_copy(update={"licence": c.licence or fill.licence})
                for c in fill.classifier
            }
    stages: list[AnyStage] = [
        s for s in (segmenter, detector, *classifiers.values()) if s is not None
    ]
    licences = list(dict.fromkeys(s.licence or UNSTATED for s in stages))
    return Manifest(
        name=name,
        version=str(int(have.version) + 1) if have and have.version.isdecimal() else "1",
        description=have.description
        if have and not _describes_itself(have)
        else _described(stages),
        licence="; ".join(licences),
        segmenter=segmenter,
        detector=detector,
        classifier=tuple(classifiers.values()),
    )


def _describes_itself(manifest: Manifest) -> bool:
    """Return whether the description is the one that `_described` makes, and nobody wrote it."""
    stages: list[AnyStage] = [
        s for s in (manifest.segmenter, manifest.detector, *manifest.classifier) if s is not None
    ]
    return manifest.description == _described(stages)


def _described(stages: Sequence[AnyStage]) -> str:
    return " · ".join(stage.network for stage in stages)


def _copy_missing(source: Pack, grown: Pack) -> None:
    """Copy files that the grown pack lacks, if the source has them with the recorded hash."""
    for name, recorded in grown.files.items():
        if not (grown.directory / name).exists() and source.files.get(name) == recorded:
            shutil.copyfile(source.directory / name, grown.directory / name)


def _swap(made: Path, directory: Path) -> None:
    """Put the new pack in the place of the old one.

    A reader finds one or the other, or for an instant none. If the second rename fails, the old
    pack is put back.
    """
    made.chmod(0o755)
    retired = made.parent.parent / f"{TEMPORARY}{made.parent.name.removeprefix(TEMPORARY)}-retired"
    try:
        if directory.exists():
            directory.rename(retired)
        made.rename(directory)
    except BaseException:
        if retired.exists() and not directory.exists():
            retired.rename(directory)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _upload(pack: Pack, address: str, storage: StorageSettings) -> None:
    """Upload the files, and the manifest last.

    Until then the old pack either matches its hashes or is refused.
    """
    store = open_store(address, storage)
    for name in [*pack.files, *TEXTS, FILENAME]:
        path = pack.directory / name
        if path.exists():
            store.put(name, path.read_bytes())
    gone = {"detector.onnx", "detector.safetensors", DETECTOR_CONFIG} - set(pack.files)
    store.delete(sorted(gone))
    if (left := load_pack(address, storage)).manifest != pack.manifest:
        raise PackError(
            f"{address}/{FILENAME}: is not what was written; another import has been there: {left.name}"
        )
