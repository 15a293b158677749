"""Test the command line's contract: commands, options, exit codes, one message per mistake, valid JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import skinbatch
from skinbatch.cli import main as cli
from skinbatch.console import counted, query, summary
from skinbatch.engines import score as engines_score
from skinbatch.engines.presenter import RunProgress
from skinbatch.engines.terminal import clock, describe
from skinbatch.errors import ClaimError, SkinbatchError, StoreError, TableError, UsageError
from skinbatch.runs.run_report import RunReport

COMMANDS = {
    "score": [
        *(
            "SOURCE",
            "DEST",
            "--pack",
            "--engine",
            "--ray-address",
            "--config",
            "--workers",
            "--limit",
        ),
        *(
            "--max-failures",
            "--save-masks",
            "--include",
            "--exclude",
            "--head",
            "--content-hash",
            "--only-new",
            "--log-format",
            "--json",
        ),
    ],
    "status": ["DEST", "--json"],
    "verify": ["DEST", "--json"],
    "plan": ["SOURCE", "DEST", "--sample", "--workers", "--engine", "--config", "--json"],
    "retry": ["DEST", "--where", "--ids", "--log-format", "--json"],
    "demo": ["DIR", "--json"],
    "pack list": ["--json"],
    "pack show": ["--json"],
    "pack verify": [],
    "pack anchors": [
        "TRUTH",
        "--anchors",
        "-k",
        "--size",
        "--max-upscale",
        "--output",
        "--plot",
        "--json",
    ],
    "export": [
        "SOURCE",
        "OUT",
        "--format",
        "voc",
        "coco",
        "yolo",
        "--score-threshold",
        "--scoring",
        "--json",
    ],
    "evaluate": [
        *(
            "DEST",
            "TRUTH",
            "--out",
            "--thresholds",
            "--bootstrap",
            "--map",
            "--apart",
            "--group",
            "--format",
            "--scoring",
        ),
        *("--config", "--json"),
    ],
    "explain": [
        "DEST",
        "IMAGE_ID",
        "-o",
        "--class",
        "--head",
        "--method",
        "--pack",
        "--scoring",
        "--config",
        "--json",
    ],
}
REPORT = RunReport(
    0, "done", "/out", "0123456789ab", "/out/images/", "/out/boxes/", rows=3, scored=3
)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Return the exit code of `skinbatch ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["skinbatch", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_argument_and_option(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *command.split(), "--help") == 0
    said = capsys.readouterr().out
    assert [name for name in COMMANDS[command] if name not in said] == []


def test_help_lists_the_commands_and_the_version_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--help") == 0
    said = capsys.readouterr().out
    assert [c for c in COMMANDS if c.split()[0] not in said] == []
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"skinbatch {skinbatch.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["skore"], "skore"),
        (["score"], "SOURCE"),
        (["score"], "skinbatch score --help"),
        (["score", "a", "b", "--colour"], "--colour"),
        (["score", "a", "b", "--workers", "many"], "--workers"),
        (["score", "a", "b", "--engine", "cloud"], "engine.name"),
        (["score", "a", "b", "--limit", "0", "--engine", "local"], "run.limit"),
        (["score", "a", "b", "--config", "nowhere.toml"], "nowhere.toml"),
        (["score", "nowhere", "b", "--engine", "local"], "nowhere"),
        (["verify", "nowhere"], "nowhere"),
        (["status", "nowhere"], "nowhere"),
        (["retry", "nowhere", "--engine", "local"], "nowhere"),
        (["pack", "show", "nowhere"], "no such pack"),
        (["pack", "anchors", "nowhere"], "nowhere"),
        (["pack", "anchors", "nowhere", "-k", "0"], "-k"),
        (["explain", "nowhere", "a.jpg"], "nowhere"),
        (["evaluate", "nowhere", "truth"], "nowhere"),
        (["evaluate", "nowhere", "truth", "--bootstrap", "-1"], "--bootstrap"),
        (["evaluate", "nowhere", "truth", "--thresholds", "half"], "--thresholds"),
        (["explain", "nowhere", "a.jpg", "--method", "guess"], "--method"),
    ],
)
def test_wrong_use_is_exit_2_and_one_message(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.startswith("skinbatch: ")
    assert "Traceback" not in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("u"), 2),
        (StoreError("s"), 4),
        (TableError("t"), 5),
        (ClaimError("c"), 7),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("z"), 1),
    ],
)
def test_every_kind_of_error_has_its_exit_code(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*args: Any, **kwargs: Any) -> RunReport:
        raise error

    monkeypatch.setattr(engines_score, "score", fail)
    assert call(monkeypatch, "score", "a", "b") == code
    said = capsys.readouterr().err
    assert ("Traceback" in said) == (code == 1)
    if isinstance(error, SkinbatchError):
        assert said == f"skinbatch: {error}\n"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["score", "a"], "DEST"),
        (["score", "a", "b", "--colour"], "--colour"),
        (["score", "a", "b", "--deadline", "soon"], "--deadline"),
        (["score", "a", "b", "--exit-zero-on", "99"], "--exit-zero-on"),
        (["retry", "a", "--workers", "many"], "--workers"),
    ],
)
def test_a_command_line_that_cannot_be_parsed_has_a_json_result_too(
    arguments: list[str],
    names: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, *arguments, "--json") == 2

    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert result["exit_code"] == 2
    assert names in result["message"]


@pytest.mark.parametrize("code", [0, 3, 4, 6, 130])
def test_the_exit_code_is_the_reports_and_json_is_the_report(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    def score(source: str, dest: str, **options: Any) -> RunReport:
        seen.update(options, source=source, dest=dest)
        return RunReport(code, "so", dest, "f", "i", "b", rows=2, statuses={"ok": 1, "empty": 1})

    monkeypatch.setattr(engines_score, "score", score)
    options = [
        "--engine",
        "ray",
        "--workers",
        "3",
        "--limit",
        "7",
        "--max-failures",
        "0.25",
        "--save-masks",
    ]
    filters = [
        "--include",
        "*.png",
        "--include",
        "*.jpg",
        "--exclude",
        "old/*",
        "--head",
        "--anonymous",
    ]
    assert call(monkeypatch, "score", "src", "dst", *options, *filters, "--json") == code
    report = json.loads(capsys.readouterr().out)
    assert (report["exit_code"], report["failed"], report["statuses"]) == (
        code,
        1,
        {"ok": 1, "empty": 1},
    )
    assert (seen["source"], seen["dest"], seen["workers"], seen["limit"]) == ("src", "dst", 3, 7)
    assert (seen["max_failures"], seen["save_masks"], seen["engine"]) == (0.25, True, "ray")
    source = seen["config"].source
    assert (source.include, source.exclude, source.head) == (("*.png", "*.jpg"), ("old/*",), True)
    assert seen["config"].storage.anonymous


def test_a_settings_file_is_read_and_options_win_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.toml").write_text(
        "[source]\nhead = true\nexclude = ['a/*']\n[run]\nlimit = 9\n"
    )
    seen: dict[str, Any] = {}

    def score(source: str, dest: str, **options: Any) -> RunReport:
        seen.update(options)
        return REPORT

    monkeypatch.setattr(engines_score, "score", score)
    assert (
        call(
            monkeypatch,
            "score",
            "s",
            "d",
            "--config",
            str(tmp_path / "run.toml"),
            "--exclude",
            "b/*",
        )
        == 0
    )
    assert (seen["config"].source.head, seen["config"].source.exclude) == (True, ("b/*",))
    assert seen["config"].run.limit == 9


def test_reading_tables_and_asking_for_help_need_neither_torch_nor_ray() -> None:
    program = (
        "import sys, skinbatch, skinbatch.cli; skinbatch.open; skinbatch.verify; "
        "print([m for m in ('torch', 'ray', 'mmdet', 'timm') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_summary_says_where_the_tables_are_and_what_to_do_next() -> None:
    report = RunReport(
        0, "done", "/my out", "f", "/my out/images/scoring=f/", "/my out/boxes/scoring=f/", rows=10, scored=8, copied=2,
        statuses={"ok": 9, "corrupt": 1}, skipped={".txt": 3}, seconds=75.0, photos_per_second=0.1,
    )  # fmt: skip
    said = summary(report)
    for text in (
        "9 ok, 1 corrupt",
        "/my out/images/scoring=f/",
        "skinbatch verify '/my out'",
        "3 .txt",
        "1:15",
    ):
        assert text in said
    assert "skinbatch retry '/my out'" in said
    assert "2 copied" in said


def test_a_run_that_is_not_done_points_to_what_is_left() -> None:
    said = summary(
        RunReport(4, "3 units could not be scored", "/o", "f", "i", "b", units=9, units_left=3)
    )
    assert "3 of 9 units" in said
    assert "skinbatch status /o" in said


def test_progress_is_told_in_one_line() -> None:
    progress = RunProgress(120, 283, 3, 9, 2, 4.06, 40.2)
    assert describe(progress) == "120/283 photos, 4.1/s, 0:40 left, 2 failed"
    assert (clock(3725), clock(59.6)) == ("1:02:05", "1:00")
    assert counted({"corrupt": 8, "ok": 271, "cut": 8}) == "271 ok, 8 corrupt, 8 cut"


def test_the_query_of_the_summary_works_when_pasted(tmp_path: Path) -> None:
    done = subprocess.run(query(str(tmp_path)), shell=True, capture_output=True, text=True)
    # Nothing was scored here, but the command does reach skinbatch.
    assert "is not a destination of skinbatch" in done.stderr


def test_the_summary_of_a_run_with_a_settings_file_names_it_in_every_line_to_paste(
    tmp_path: Path,
) -> None:
    said = summary(RunReport(0, "done", "s3://b/o", "f", "i", "b"), tmp_path / "run.toml")
    assert f"skinbatch verify s3://b/o --config {tmp_path}/run.toml" in said
    assert f'skinbatch.open("s3://b/o", config="{tmp_path}/run.toml")' in said.replace("\\", "")
