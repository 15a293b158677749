"""Test that the benchmark runs, compares the same work, and prints its results."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import bench_overhead, bench_sides, benchmark
from jobs.bench_loops import Job
from jobs.bench_memory import peaks
from jobs.bench_overhead import Ran, Run
from jobs.bench_profile import STAGES, Span, profile_of
from jobs.bench_readers import TARGET_EMPTY_MB
from jobs.bench_readers import measure as measure_readers
from jobs.bench_sides import LOCAL, SIDES
from jobs.bench_speed import command, compare
from skinbatch.storage.local import LocalStore
from tests.conftest import S3Server
from tests.faces import face, png, write_tree

JOB = Path(__file__).resolve().parents[2] / "jobs/benchmark.py"
FAKE = ["--pack", "fake", "--count", "6", "--repeats", "1"]


InProcess = Callable[..., str]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> InProcess:
    """Run the benchmark in this process and return what it prints."""

    def run(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(JOB), *options])
        benchmark.main()
        return capsys.readouterr().out

    return run


def bench(*options: str) -> str:
    done = subprocess.run([sys.executable, str(JOB), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_sides_are_compared_over_the_same_photos(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    printed = bench(*FAKE, "--sides", "bare,local", "--json", str(found))
    measured = json.loads(found.read_text())
    bare, local = measured["sides"]["bare"], measured["sides"]["local"]
    assert bare["photos"] == local["photos"] == 6
    assert bare["boxes"] == local["boxes"]
    assert 0 < local["seconds"][0] < local["end_to_end"][0]
    (ratio,) = measured["ratios"]
    assert ratio["value"] == round(local["photos_per_second"] / bare["photos_per_second"], 3)
    assert "(c) / (a) after warm-up" in printed


@pytest.mark.slow
def test_a_plain_loop_takes_the_faster_of_two_ways_and_finds_the_same_boxes(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    printed = bench(*FAKE, "--sides", "bare,best,loader", "--json", str(found))
    sides = json.loads(found.read_text())["sides"]
    assert set(sides) == {"bare", "best"}
    assert "(g) DataLoader, mmdet is left out" in printed
    assert sides["best"]["boxes"] == sides["bare"]["boxes"]
    assert set(sides["best"]["spent"]) <= {"one loop", "loops"}


@pytest.mark.slow
def test_mmdet_s_own_inferencer_finds_about_the_same_boxes(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    bench("--count", "4", "--repeats", "1", "--sides", "bare,loader", "--json", str(found))
    bare, loader = json.loads(found.read_text())["sides"].values()
    assert bare["boxes"] > 4
    assert loader["boxes"] == pytest.approx(bare["boxes"], rel=0.25)


def test_a_ratio_that_falls_by_more_than_a_tenth_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "baseline.json"

    def ratios(first: float, second: float) -> dict[str, Any]:
        pairs = {"local / bare": first, "ray / bare": second}
        return {
            "key": "2 cores",
            "ratios": [{"name": name, "value": value} for name, value in pairs.items()],
        }

    assert compare(ratios(1.0, 0.9), baseline) == []
    assert str(baseline) in capsys.readouterr().out, "the first run names what it has written"
    assert compare(ratios(0.91, 0.95), baseline) == []
    assert compare(ratios(1.2, 0.80), baseline) == ["ray / bare: 0.80, and 0.90 before"]
    assert compare(ratios(0.1, 0.1) | {"key": "64 cores"}, baseline) == []
    assert json.loads(baseline.read_text())["2 cores"] == {"local / bare": 1.0, "ray / bare": 0.9}


def test_a_profile_tells_what_ran_beside_what() -> None:
    spans = [Span("decode", 0, 4), Span("segmenter", 3, 5), Span("segmenter", 3, 5)]
    profile = profile_of(spans, photos=2, cores=2, cpu=8.0)
    stages = {stage.name: (stage.seconds, stage.beside) for stage in profile.stages}
    assert stages["decode"] == (4, 1)
    assert stages["segmenter"] == (4, 2)
    assert stages["detector"] == (0, 0)
    assert (profile.seconds, profile.busy, profile.bound) == (5, 0.8, 0.5)
    assert "bounded by waiting" in profile.text()


def test_a_worker_is_profiled_from_the_first_photo_to_the_last_table(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    printed = bench(*FAKE, "--profile", "--json", str(found))
    profile = json.loads(found.read_text())["profile"]
    assert profile["photos"] == 6
    seconds = {stage["name"]: stage["seconds"] for stage in profile["stages"]}
    assert list(seconds) == list(STAGES)
    assert all(value > 0 for value in seconds.values())
    assert max(seconds.values()) <= profile["seconds"] * 8
    assert "photos/s; the cores are busy" in printed


def test_objects_and_tars_of_a_bucket_are_read_beside_a_plain_loop(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: InProcess
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(s3.settings.endpoint_url))
    bucket = s3.bucket()
    found = tmp_path / "found.json"
    printed = in_process(
        *("--objects", f"s3://{bucket}/photos", "--count", "12"),
        *("--repeats", "1", "--json", str(found)),
    )
    measured = json.loads(found.read_text())["objects"]
    assert [(one["what"], one["photos"]) for one in measured] == [("objects", 12), ("tars", 12)]
    for one in measured:
        assert one["ratio"] == pytest.approx(one["reader"][0] / one["loop"][0], abs=0.001)
    assert printed.count("target >= 0.8") == 2
    listed = s3.client.list_objects_v2(Bucket=bucket)
    assert listed["KeyCount"] == 13, "every photo is there once, and in one tar"


def test_memory_of_worker_and_driver_is_told_apart(tmp_path: Path, fake_pack: str) -> None:
    photos = write_tree(tmp_path / "photos", {f"{n}.png": png(face(n)) for n in range(2)})
    job = Job(LOCAL, str(photos), 2, str(tmp_path / "out"), fake_pack, 1, count_boxes=False)
    found = peaks(command(job))
    assert found.worker > found.driver > 50  # the worker has torch in it


@pytest.mark.slow
def test_memory_is_measured_over_few_and_many_photos_and_units(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    few_and_many = ["--memory-photos", "2", "4", "--memory-units", "2", "4", "--engines", "local"]
    bench(*FAKE, "--memory", *few_and_many, "--json", str(found))
    worker, driver = json.loads(found.read_text())["memory"]
    assert worker["what"].startswith("worker")
    assert driver["what"].startswith("driver")
    assert worker["many"] == driver["many"] == 4
    assert worker["many_mib"] > driver["many_mib"] > 50  # the worker has torch in it


@pytest.mark.slow
def test_a_scoring_with_a_new_classifier_is_timed_beside_a_full_one(
    tmp_path: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "result_of", lambda job: asdict(SIDES[job.side](job)))
    found = tmp_path / "found.json"
    printed = in_process(*FAKE, "--rescore", "--json", str(found))
    measured = json.loads(found.read_text())["rescore"]
    assert measured["photos"] == 6
    assert measured["ratio"] == measured["rescore"][0] / measured["full"][0]
    assert "a new classifier alone" in printed and "target < 0.4" in printed


@pytest.mark.slow
def test_evaluation_of_made_up_tables_is_timed(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    size = ["--evaluate-photos", "150", "--evaluate-boxes", "4000", "--bootstrap", "20"]
    printed = bench("--evaluate", *size, "--json", str(found))
    measured = json.loads(found.read_text())["evaluate"]
    assert (measured["photos"], measured["boxes"]) == (150, 4000)
    assert 1500 < measured["true_boxes"] < 2500
    assert 0.3 < measured["ap50"] < 0.9 and measured["mae"] > 0
    assert measured["cpu_seconds"] > 0 and measured["mib"] > 100
    assert "target < 600 s and < 4,096 MiB reached" in printed


@pytest.mark.slow
def test_readers_of_made_up_tables_are_timed(tmp_path: Path) -> None:
    (report, *exports), regrading = measure_readers(30, 200, tmp_path)

    assert report.command == "report"
    assert report.cpu_seconds > 0
    assert report.mib > 50
    assert 0.01 < report.megabytes < TARGET_EMPTY_MB
    assert [export.command for export in exports] == ["export coco", "export label-studio"]
    assert all(export.megabytes > 0 for export in exports)
    assert "30 photos, 200 boxes" in exports[0].line()
    assert regrading.boxes == 200
    assert "boxes a second   target >= 1,000,000" in regrading.line()


@pytest.mark.slow
def test_overhead_is_told_by_photos_safety_and_a_finished_destination(
    tmp_path: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = bench_overhead.start

    def scored(job: Run) -> Ran:
        """Give a run a process of its own only if its memory or its patches need one."""
        return start(job) if job.watched or "shards" in job.source else bench_overhead.run(job)

    monkeypatch.setattr(bench_overhead, "start", scored)
    monkeypatch.setattr(LocalStore, "_walk", LocalStore._walk)  # `run` replaces it
    found = tmp_path / "found.json"
    printed = in_process(
        *FAKE,
        "--overhead",
        "--overhead-photos",
        "16",
        "32",
        "--finished-units",
        "30",
        "--json",
        str(found),
    )
    measured = json.loads(found.read_text())
    assert [rate["what"].split()[0] for rate in measured["rates"]] == [
        "empty",
        "empty",
        "16",
        "rows",
    ]
    assert 0 < measured["safety"]["share"] < 1
    killed, finished = measured["resume"].values()
    assert killed["rows"] == finished["rows"] == 30
    assert killed["scored"] == finished["scored"] == 0
    assert finished["message"].startswith("nothing to do")
    # Source, receipts, images, boxes; what is small: masks, folds, attempts, plans, runs, and snapshots as often as it is asked
    # which is the newest.
    assert finished["pages"] <= 4 + 12, printed
    assert finished["peak"] < 300


@pytest.mark.parametrize("stage", ["segmenter", "detector", "classifier"])
def test_a_model_alone_is_measured_in_both_ways_and_the_better_is_run_with_all_bare_work(
    stage: str, tmp_path: Path, fake_pack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[int, int, bool, bool]] = []
    photos = write_tree(tmp_path, {f"{n}.png": png(face(n, 1)) for n in range(8)})
    monkeypatch.setattr(bench_sides, "_ALONE_S", 0.1)
    streams = bench_sides._streams

    def watched(
        job: Job, number: int, each: int, whole: bool = False, folded: bool = False
    ) -> list[tuple[int, float]]:
        found = streams(job, number, each, whole, folded)
        runs.append((len(found), torch.get_num_threads(), whole, folded))
        return found

    monkeypatch.setattr(bench_sides, "_streams", watched)
    before = torch.get_num_threads()
    try:
        result = bench_sides.alone(
            Job(bench_sides.ALONE, str(photos), 0, "", fake_pack, 2, batch=4, stage=stage)
        )
    finally:
        torch.set_num_threads(before)
    better = (1, 2) if result.spent["one stream"] > result.spent["streams"] else (2, 1)
    assert runs == [
        (1, 2, False, False),
        (2, 1, False, False),
        (*better, True, False),
        (*better, True, True),
    ]
    assert (
        set(result.spent) == {"one stream", "streams", "folded"} and min(result.spent.values()) > 0
    )
    assert result.photos > 0 and result.seconds > 0


def test_a_side_that_does_not_exist_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(JOB), "--sides", "bare,spark"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "no side `spark`; there are: bare, best, local, ray" in done.stderr
