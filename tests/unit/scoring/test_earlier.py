"""Test that stages are taken from an earlier scoring only where that gives a full scoring's tables."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

import skinbatch
from skinbatch.config import parse_config
from skinbatch.console import summary
from skinbatch.engines.driver import drive
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import prepare, prepare_again
from skinbatch.errors import StoreError
from skinbatch.models import fake
from skinbatch.models.fake import write_fake_pack
from skinbatch.models.manifest import read_manifest, write_manifest
from skinbatch.reading import destination_store
from skinbatch.runs.compact import compact
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.run_report import RunReport
from skinbatch.storage.local import LocalStore
from skinbatch.storage.store import Store
from skinbatch.tables.rows import result_of
from tests.faces import face, jpeg, png, tar_bytes, write_tree
from tests.faults.in_process import InProcessEngine
from tests.field.in_process import command, score

MODELS = {"segmenter": "FakeSegmenter", "detector": "FakeDetector", "classifier": "FakeClassifier"}


def pack(folder: Path, **stages: dict[str, Any]) -> str:
    """Write the fake pack with other settings of some stages, and return its address."""
    manifest = read_manifest(write_fake_pack(folder, closeups=True))
    changed: dict[str, Any] = {}
    for name, values in stages.items():
        stage = manifest.classifier[0] if name == "classifier" else getattr(manifest, name)
        changed[name] = stage.model_copy(update=values)
    if "classifier" in changed:
        changed["classifier"] = (changed["classifier"],)
    write_manifest(manifest.model_copy(update=changed), folder)
    return str(folder)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write four faces, one of them larger than the fake segmenter's maps, and a photo of an arm."""
    large = np.asarray(cv2.resize(face(3, 2, 7), (420, 333)), np.uint8)
    arm = np.full((96, 96, 3), (130, 90, 70), np.uint8)
    files = {f"a{n}.png": png(face(n, 3 - n, n)) for n in range(3)}
    return write_tree(tmp_path / "photos", files | {"large.jpg": jpeg(large), "arm.png": png(arm)})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the photos that each model is given."""
    counts: Counter[str] = Counter()

    def counted(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def model(self: Any, photos: Sequence[Any]) -> Any:
            counts[stage] += len(photos)
            return call(self, photos)

        return model

    for stage, name in MODELS.items():
        monkeypatch.setattr(
            getattr(fake, name), "__call__", counted(stage, getattr(fake, name).__call__)
        )
    return counts


def tables(dest: Path, report: RunReport) -> list[pa.Table]:
    results = skinbatch.open(str(dest), scoring=report.fingerprint)
    return [results.images().sort_by("image_id"), results.boxes(), results.masks()]


def assert_equal(dest: Path, report: RunReport, full: Path, other: RunReport) -> None:
    assert report.exit_code == other.exit_code == 0
    for found, right in zip(tables(dest, report), tables(full, other), strict=True):
        assert found.equals(right)


def taken_of(dest: Path, report: RunReport) -> dict[str, str]:
    record = json.loads(
        (dest / "_skinbatch" / "scorings" / f"{report.fingerprint}.json").read_text()
    )
    return dict(record["taken"])


PROVED = "every listed photo has exactly one row: 5 photos, 5 rows, 14 boxes, 2 files checked\n"
CLASSIFIER = {"classifier": {"classes": ("rosacea", "lupus_erythematosus", "melanoma")}}
MASKED = {"classifier": {"input": "masked_crop"}}
WHOLE = {"detector": {"input": "image"}}
FEWER = {"segmenter": {"size": 64}}


@pytest.mark.parametrize(
    ("changed", "masks_before", "masks_now", "run"),
    [
        (CLASSIFIER, False, False, {"classifier": 5}),
        (CLASSIFIER, True, True, {"classifier": 5}),
        (CLASSIFIER, True, False, {"classifier": 5}),
        (CLASSIFIER, False, True, {"segmenter": 5, "classifier": 5}),
        (MASKED, True, False, {"classifier": 5}),
        (MASKED, False, False, {"segmenter": 5, "classifier": 5}),
        (WHOLE, True, True, {"detector": 4}),
        (WHOLE, False, False, {"segmenter": 5, "detector": 4}),
        (WHOLE | CLASSIFIER, True, False, {"detector": 4, "classifier": 5}),
        (FEWER, True, True, {"segmenter": 5, "detector": 4, "classifier": 5}),
    ],
)
def test_only_changed_stages_run_and_the_tables_are_those_of_a_full_scoring(
    tmp_path: Path,
    source: Path,
    seen: Counter[str],
    changed: dict[str, Any],
    masks_before: bool,
    masks_now: bool,
    run: dict[str, int],
) -> None:
    dest, full = tmp_path / "out", tmp_path / "full"
    first = score(source, dest, pack(tmp_path / "one"), run={"save_masks": masks_before})
    other = pack(tmp_path / "two", **changed)
    right = score(source, full, other, run={"save_masks": masks_now})
    seen.clear()

    report = score(source, dest, other, run={"save_masks": masks_now})
    assert dict(seen) == run
    assert_equal(dest, report, full, right)

    stages = {"segmenter", "detector", "classifier-disease"}
    taken = stages - {
        stage for stage in stages if stage.partition("-")[0] in run or changed is FEWER
    }
    assert taken_of(dest, report) == dict.fromkeys(taken, first.fingerprint)
    assert report.taken == dict.fromkeys(taken, 5)
    assert (f"from scoring {first.fingerprint}" in summary(report)) == bool(taken)
    assert not taken_of(full, right) and not right.taken


def test_a_classifier_that_is_added_runs_alone(
    tmp_path: Path, source: Path, seen: Counter[str]
) -> None:
    dest, full, other = tmp_path / "out", tmp_path / "full", pack(tmp_path / "two")
    score(source, dest, pack(tmp_path / "one"))
    manifest = read_manifest(Path(other))
    added = manifest.classifier[0].model_copy(update={"head": "tone", "classes": ("light", "dark")})
    write_manifest(
        manifest.model_copy(update={"classifier": (*manifest.classifier, added)}), Path(other)
    )
    right = score(source, full, other)
    seen.clear()
    report = score(source, dest, other)
    assert dict(seen) == {"classifier": 5}
    assert_equal(dest, report, full, right)


def test_members_of_a_shard_are_recognized_too(tmp_path: Path, seen: Counter[str]) -> None:
    files = {f"{n}.png": png(face(n, 1, n)) for n in range(4)}
    source = write_tree(tmp_path / "photos", {"a.tar": tar_bytes(files)})
    dest, full = tmp_path / "out", tmp_path / "full"
    score(source, dest, pack(tmp_path / "one"))
    other = pack(tmp_path / "two", **CLASSIFIER)
    right = score(source, full, other)
    seen.clear()
    report = score(source, dest, other)
    assert dict(seen) == {"classifier": 4}
    assert_equal(dest, report, full, right)


def test_a_photo_that_failed_or_changed_since_is_scored_by_all_stages(
    tmp_path: Path, source: Path, seen: Counter[str]
) -> None:
    dest = tmp_path / "out"
    whole = (source / "a2.png").read_bytes()
    (source / "a2.png").write_bytes(whole[:300])
    assert score(source, dest, pack(tmp_path / "one"), run={"max_failures": 1.0}).failed == 1
    (source / "a2.png").write_bytes(whole)
    (source / "a1.png").write_bytes(png(face(4, 4)))
    other = pack(tmp_path / "two", **CLASSIFIER)
    right = score(source, tmp_path / "full", other)
    seen.clear()

    report = score(source, dest, other)
    assert dict(seen) == {"segmenter": 2, "detector": 2, "classifier": 5}
    assert report.taken == {"segmenter": 3, "detector": 3}
    assert_equal(dest, report, tmp_path / "full", right)
    assert command("verify", str(dest))[:2] == (0, PROVED.replace("14", "19"))


@pytest.mark.parametrize(
    "settings",
    [
        {"grading": {"threshold": 0.95}},
        {"grading": {"view": "half"}},
        {"model": {"score_floor": 0.2}},
    ],
)
def test_other_settings_of_counting_are_a_reason_to_run_the_detector(
    tmp_path: Path, source: Path, seen: Counter[str], settings: dict[str, Any]
) -> None:
    masks = {"run": {"save_masks": True}}
    score(source, tmp_path / "out", pack(tmp_path / "one"), **masks)
    other = pack(tmp_path / "two", **CLASSIFIER)
    right = score(source, tmp_path / "full", other, **masks, **settings)
    seen.clear()
    report = score(source, tmp_path / "out", other, **masks, **settings)
    assert dict(seen) == {"detector": 4, "classifier": 5}
    assert_equal(tmp_path / "out", report, tmp_path / "full", right)


def test_nothing_is_taken_if_the_setting_forbids_it(
    tmp_path: Path, source: Path, seen: Counter[str]
) -> None:
    score(source, tmp_path / "out", pack(tmp_path / "one"))
    seen.clear()
    report = score(
        source, tmp_path / "out", pack(tmp_path / "two", **CLASSIFIER), run={"reuse": False}
    )
    assert dict(seen) == {"segmenter": 5, "detector": 4, "classifier": 5}
    assert not taken_of(tmp_path / "out", report) and not report.taken


def test_nothing_is_taken_from_a_scoring_that_another_runtime_computed(
    tmp_path: Path, source: Path, seen: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(
            "skinbatch.scoring.scorer.computed_by", lambda *_: "torch on cuda in bf16"
        )
        score(source, tmp_path / "out", pack(tmp_path / "one"))
    seen.clear()
    score(source, tmp_path / "out", pack(tmp_path / "two", **CLASSIFIER))
    assert dict(seen) == {"segmenter": 5, "detector": 4, "classifier": 5}


def test_an_unfinished_scoring_is_not_taken_from(tmp_path: Path, seen: Counter[str]) -> None:
    source = write_tree(tmp_path / "photos", {f"{n}.png": png(face(1, 1, n)) for n in range(40)})
    assert score(source, tmp_path / "out", pack(tmp_path / "one"), run={"limit": 1}).exit_code == 6
    seen.clear()
    score(source, tmp_path / "out", pack(tmp_path / "two", **CLASSIFIER))
    assert dict(seen) == {"segmenter": 40, "detector": 40, "classifier": 40}


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[tuple[Path, Path, str, RunReport]]:
    """Score 40 photos, and a few of them with another classifier: source, destination, pack, first report."""
    source = write_tree(tmp_path / "photos", {f"{n}.png": png(face(1, 1, n)) for n in range(40)})
    dest, other = tmp_path / "out", pack(tmp_path / "two", **CLASSIFIER)
    first = score(source, dest, pack(tmp_path / "one"))
    assert score(source, dest, other, run={"limit": 1}).exit_code == 6
    yield source, dest, other, first


@pytest.mark.parametrize("lost", ["record", "snapshot", "grading", "file", "bytes"])
def test_stages_are_run_if_the_earlier_scoring_is_lost_in_between(
    begun: tuple[Path, Path, str, RunReport], seen: Counter[str], lost: str
) -> None:
    source, dest, other, first = begun
    record = dest / "_skinbatch" / "scorings" / f"{first.fingerprint}.json"
    images = sorted((dest / "images" / f"scoring={first.fingerprint}").iterdir())
    if lost == "record":
        record.unlink()
    elif lost == "snapshot":
        for path in (dest / "_skinbatch" / "snapshots" / first.fingerprint).iterdir():
            path.unlink()
    elif lost == "grading":
        values = json.loads(record.read_text())
        record.write_text(json.dumps(values | {"grading": values["grading"] | {"threshold": 0.9}}))
    elif lost == "file":
        for path in images:
            path.unlink()
    else:
        for path in images:
            path.write_bytes(b"damaged")
    seen.clear()

    config = parse_config({"pack": other, "engine": {"name": "local", "cpus_per_worker": 1.0}})
    presenter = SilentPresenter()
    run = Run(prepare(str(source), str(dest), config), presenter, "test")
    assert drive(run, InProcessEngine()).exit_code == 0
    assert seen["segmenter"] == seen["classifier"] > 0
    assert len(presenter.notes) == 1
    assert first.fingerprint in presenter.notes[0]


def test_a_retry_takes_stages_too(
    tmp_path: Path, source: Path, seen: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dest, other = tmp_path / "out", pack(tmp_path / "two", **CLASSIFIER)
    score(source, dest, pack(tmp_path / "one"))
    right = score(source, tmp_path / "full", other)

    def raises(self: Any, photos: Sequence[Any]) -> Any:
        raise RuntimeError("the classifier does not work today")

    with monkeypatch.context() as today:
        today.setattr(fake.FakeClassifier, "__call__", raises)
        assert score(source, dest, other, run={"max_failures": 1.0}).failed == 5
    seen.clear()
    config = parse_config({"engine": {"name": "local", "cpus_per_worker": 1.0}})
    run = Run(prepare_again(str(dest), config, False), SilentPresenter(), "test")
    report = drive(run, InProcessEngine(), retrying=True)
    assert dict(seen) == {"classifier": 5}
    assert_equal(dest, report, tmp_path / "full", right)
    assert command("verify", str(dest))[:2] == (0, PROVED)


def test_verify_finds_values_that_are_not_those_they_were_taken_from(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "out"
    first = score(source, dest, pack(tmp_path / "one"))
    other = pack(tmp_path / "two", **CLASSIFIER)

    def wrong(*args: Any) -> Any:
        return dataclasses.replace(result_of(*args), count_total=77)

    monkeypatch.setattr("skinbatch.scoring.earlier.result_of", wrong)
    score(source, dest, other)
    code, out, _ = command("verify", str(dest))
    assert code == 5
    assert "detector: 5 photos" in out and first.fingerprint in out


def test_a_unit_reads_a_bounded_number_of_earlier_units(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "out"
    score(source, dest, pack(tmp_path / "one"))
    monkeypatch.setattr("skinbatch.engines.assign.MOST_EARLIER", 0)
    report = score(source, dest, pack(tmp_path / "two", **CLASSIFIER))
    assert (report.exit_code, report.rows, dict(report.taken)) == (0, 5, {})
    assert command("verify", str(dest))[:2] == (0, PROVED)


def test_a_store_that_does_not_give_the_earlier_receipts_ends_no_run(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "out"
    first = score(source, dest, pack(tmp_path / "one"))
    load = Ledger.load

    def refused(store: Store, fingerprint: str) -> Ledger:
        if fingerprint == first.fingerprint:
            raise StoreError("503")
        return load(store, fingerprint)

    monkeypatch.setattr("skinbatch.engines.assign.Ledger.load", refused)
    report = score(source, dest, pack(tmp_path / "two", **CLASSIFIER))
    assert (report.exit_code, report.rows, dict(report.taken)) == (0, 5, {})


def test_the_earlier_scoring_may_be_deleted(tmp_path: Path, source: Path) -> None:
    dest = tmp_path / "out"
    first = score(source, dest, pack(tmp_path / "one"))
    assert score(source, dest, pack(tmp_path / "two", **CLASSIFIER)).taken == {
        "segmenter": 5,
        "detector": 5,
    }
    assert command("verify", str(dest))[:2] == (0, PROVED)
    assert f"takes detector, segmenter from {first.fingerprint}" in command("status", str(dest))[1]
    store = LocalStore(dest)
    store.delete([key for key in store.keys("") if first.fingerprint in key])
    assert command("verify", str(dest))[:2] == (0, PROVED)


def test_stages_are_taken_from_merged_files_too(tmp_path: Path, seen: Counter[str]) -> None:
    photos = {f"{n:02}.png": png(face(n % 6, n % 4, n)) for n in range(40)}
    source, dest, full = (
        write_tree(tmp_path / "photos", photos),
        tmp_path / "out",
        tmp_path / "full",
    )
    masks = {"run": {"save_masks": True}}
    first = score(source, dest, pack(tmp_path / "one"), **masks)
    store = destination_store(dest)
    assert compact(store).files_after == 3
    other = pack(tmp_path / "two", **CLASSIFIER)
    right = score(source, full, other, **masks)
    seen.clear()

    report = score(source, dest, other, **masks)
    assert dict(seen) == {"classifier": 40}
    assert report.exit_code == right.exit_code == 0
    assert [table.num_rows for table in tables(dest, report)] == [
        table.num_rows for table in tables(full, right)
    ]

    # What was taken is compared with the merged files, in their next form too.
    for fingerprint in (report.fingerprint, first.fingerprint):
        assert compact(store, scoring=fingerprint).files_after == 3
        assert skinbatch.verify(dest, scoring=report.fingerprint).differences == []
    before, after = tables(full, right), tables(dest, report)
    for name in ("count_total", "grade", "prob_melanoma"):
        right_values = before[0].column(name)
        assert after[0].column(name).equals(right_values)
    ledger = Ledger.load(store, report.fingerprint)
    taken_from = [file for stub in ledger for file in ledger.receipt(stub).taken_from]
    assert len(taken_from) >= 10
    earlier = Ledger.load(store, first.fingerprint)
    assert all(earlier.located(file) != file for file in taken_from)
