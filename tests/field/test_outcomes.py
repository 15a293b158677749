"""Test how a run ends and what people see: exit codes, one line of JSON, notes at once, closed streams."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

import skinbatch
from skinbatch.archive.missing import likely_cause
from skinbatch.config import StorageSettings, parse_config
from skinbatch.durations import moment_of, seconds_of
from skinbatch.engines.presenter import RunProgress, SilentPresenter
from skinbatch.errors import UsageError
from skinbatch.storage.locate import Locator
from skinbatch.types import ImageRef
from tests.faces import face, jpeg, png, rows, tar_bytes, write_tree
from tests.field.in_process import command

COMMAND = [sys.executable, "-m", "skinbatch"]


def skin(*arguments: object, shell: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a shell, so that its streams can be redirected. Its exit code is the first of a pipe."""
    line = " ".join(f"'{argument}'" for argument in (*COMMAND, *arguments))
    whole = f"set -o pipefail; {line} {shell}"
    return subprocess.run(["bash", "-c", whole], capture_output=True, text=True, timeout=240)


def write_listing(path: Path, uris: list[str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["uri"], *([uri] for uri in uris)])
    return path


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Write thirty photos whose names have a space and a plus sign."""
    return write_tree(
        tmp_path / "album", {f"patient {n}+left.jpg": jpeg(face(n % 6)) for n in range(30)}
    )


def test_a_listing_of_url_encoded_keys_is_no_success(
    album: Path, fake_pack: str, tmp_path: Path
) -> None:
    names = sorted(path.name for path in album.iterdir())
    listing = write_listing(tmp_path / "encoded.csv", [f"album/{quote(name)}" for name in names])
    run = ("score", str(listing), str(tmp_path / "out"), "--engine", "local", "--pack", fake_pack)
    code, said, _ = command(*run, "--json")
    assert code == 4
    result = json.loads(said)
    assert result["exit_code"] == 4
    assert "of 30 listed photos" in result["message"]
    assert "album/patient%20" in result["message"]
    assert "URL-encoded" in result["message"]
    assert command("verify", str(tmp_path / "out"))[0] == 5

    # Run the same command with a correct listing: the first attempt must leave nothing in the way.
    write_listing(listing, [f"album/{name}" for name in names])
    again = skinbatch.score(listing, tmp_path / "out", engine="local", pack=fake_pack)
    assert (again.exit_code, again.rows) == (0, 30)
    assert skinbatch.verify(tmp_path / "out").differences == []


def test_a_few_photos_that_are_gone_are_no_failure_and_more_may_be_allowed(
    album: Path, fake_pack: str, tmp_path: Path
) -> None:
    there = sorted(f"album/{path.name}" for path in album.iterdir())[:4]
    few = write_listing(tmp_path / "few.csv", [*there, *(f"album/gone-{n}.jpg" for n in range(3))])
    report = skinbatch.score(few, tmp_path / "few", engine="local", pack=fake_pack)
    assert (report.exit_code, report.rows, report.vanished) == (0, 4, 3)

    many = write_listing(
        tmp_path / "many.csv", [*there, *(f"album/gone-{n}.jpg" for n in range(6))]
    )
    report = skinbatch.score(many, tmp_path / "many", engine="local", pack=fake_pack)
    assert (report.exit_code, report.units_left > 0) == (4, True)
    assert "set max_gone = 1 in [run]" in report.message

    settings = parse_config({"run": {"max_gone": 1.0}})
    report = skinbatch.score(
        many, tmp_path / "many", engine="local", pack=fake_pack, config=settings
    )
    assert (report.exit_code, report.rows) == (0, 4)


def test_archive_files_that_are_not_there_are_no_success(fake_pack: str, tmp_path: Path) -> None:
    members = {"a.png": png(face(2))}
    write_tree(tmp_path / "shards", {f"part {n}.tar": tar_bytes(members) for n in range(3)})
    listing = tmp_path / "list.csv"
    listing.write_text("uri,size\n" + "".join(f"shards/part%20{n}.tar,2048\n" for n in range(3)))
    report = skinbatch.score(listing, tmp_path / "out", engine="local", pack=fake_pack)
    assert report.exit_code == 4
    assert "3 of 3 listed shards" in report.message and "URL-encoded" in report.message


def test_archives_in_which_there_is_no_photo_are_no_success(fake_pack: str, tmp_path: Path) -> None:
    tree = write_tree(
        tmp_path / "tree", {"a.tar": tar_bytes({"notes.txt": b"text", "more.txt": b"text"})}
    )
    for _ in range(2):
        report = skinbatch.score(tree, tmp_path / "out", engine="local", pack=fake_pack)
        assert (report.exit_code, report.rows) == (4, 0)
        assert "no photo was found" in report.message


CAUSES: dict[str, tuple[str, str, str]] = {
    "encoded": ("a b.jpg", "a%20b.jpg", "URL-encoded"),
    "encoded as a form": ("a b.jpg", "a+b.jpg", "URL-encoded"),
    "encoded twice": ("a b.jpg", "a%2520b.jpg", "URL-encoded twice"),
    "names that are encoded": ("a%20b.jpg", "a b.jpg", "have them decoded|has them decoded"),
    "backslashes": ("in/a.jpg", "in\\a.jpg", "backslashes"),
    "case": ("Photos/A.JPG", "photos/a.jpg", "upper and lower case"),
    "ending": ("a.jpeg", "a.jpg", "the extension differs"),
    "prefix too many": ("a.jpg", "bucket/a.jpg", "the folder or prefix differs"),
    "prefix missing": ("data/2024/a.jpg", "a.jpg", "the folder or prefix differs"),
    "another Unicode form": ("Bjo\u0308rn.jpg", "Bj\u00f6rn.jpg", "Unicode form"),
    "no such folder": ("a.jpg", "nowhere/b.jpg", "nowhere does not exist or is empty"),
}


@pytest.mark.parametrize("case", CAUSES)
def test_the_likely_cause_is_guessed_from_what_is_there(case: str, tmp_path: Path) -> None:
    there, listed, says = CAUSES[case]
    write_tree(tmp_path / "tree", {there: jpeg(face())})
    listing = write_listing(tmp_path / "tree/list.csv", [listed])
    ref = ImageRef(listed, f"{tmp_path}/tree/{listed}")
    cause = likely_cause([ref], str(listing), Locator(StorageSettings()))
    assert cause is not None
    assert any(part in cause or __import__("re").search(part, cause) for part in says.split("|"))


def test_a_missing_folder_is_told_at_once_and_not_at_the_end(
    fake_pack: str, tmp_path: Path
) -> None:
    listing = write_listing(tmp_path / "list.csv", [f"not-there/{n}.jpg" for n in range(40)])
    settings = tmp_path / "settings.toml"
    settings.write_text("[storage]\nmax_attempts = 1\ntimeout_s = 16.0\n")  # pauses of 2 and 8 s
    arguments = ["score", str(listing), str(tmp_path / "out"), "--engine", "local", "--json"]
    run = subprocess.Popen(
        [*COMMAND, *arguments, "--pack", fake_pack, "--config", str(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None and run.stdout is not None
    note = next(line for line in run.stderr if line.startswith("note: "))
    assert run.poll() is None, "it came with the end"
    assert "not-there is gone" in note
    assert run.wait(120) == 4
    assert "not-there is gone" in json.loads(run.stdout.read())["message"]


def test_the_result_is_one_line_of_json_also_when_nothing_could_be_done(
    album: Path, fake_pack: str, tmp_path: Path
) -> None:
    out, other = str(tmp_path / "out"), str(tmp_path / "other")
    run = ("score", str(album), out, "--engine", "local", "--pack", fake_pack, "--json")
    stopped = skin(*run, "--limit", "1", "--exit-zero-on", "6")
    assert stopped.returncode == 0
    assert len(stopped.stdout.splitlines()) == 1
    result = json.loads(stopped.stdout)
    assert result["exit_code"] == 6
    assert result["destination"] == out
    assert result["units_left"] > 0
    assert command(*run, "--limit", "1")[0] in (0, 6)

    nowhere = ("score", str(tmp_path / "nowhere"), other, "--json")
    code, said, _ = command(*nowhere)
    assert code == 2
    assert json.loads(said)["exit_code"] == 2
    assert "nowhere" in json.loads(said)["message"]
    code, said, _ = command(*nowhere, "--exit-zero-on", "2")
    assert (code, json.loads(said)["exit_code"]) == (0, 2)
    assert command(*run, "--exit-zero-on", "8")[0] == 2


def test_a_run_with_nothing_to_do_starts_neither_ray_nor_a_worker(
    album: Path, fake_pack: str, tmp_path: Path
) -> None:
    skinbatch.score(album, tmp_path / "out", engine="local", pack=fake_pack)
    # Nothing listens at this address, so any use of Ray ends with 4.
    program = (
        "import sys, skinbatch\n"
        f"report = skinbatch.score({str(album)!r}, {str(tmp_path / 'out')!r}, pack={fake_pack!r}, "
        "ray_address='127.0.0.1:1')\n"
        "assert report.nothing_to_do and report.exit_code == 0, report\n"
        "assert 'ray' not in sys.modules and 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "shell",
    [
        *("2>&- >&-", "> /dev/full"),
        *(pytest.param(way, marks=pytest.mark.slow) for way in (">&-", "| head -0", "<&-")),
    ],
)
def test_the_exit_code_stands_whatever_becomes_of_the_streams(
    shell: str, album: Path, fake_pack: str, tmp_path: Path
) -> None:
    skinbatch.score(album, tmp_path / "out", engine="local", pack=fake_pack)
    next(iter((tmp_path / "out/boxes").rglob("*.parquet"))).unlink()
    for arguments, code in (
        (("verify", tmp_path / "out"), 5),
        (("pack", "list"), 0),
        (("status", tmp_path / "out"), 0),
    ):
        done = skin(*arguments, shell=shell)
        assert done.returncode == code
        assert "Traceback" not in done.stderr
    done = skin(
        "score",
        album,
        tmp_path / "new",
        "--engine",
        "local",
        "--pack",
        fake_pack,
        "--limit",
        "1",
        shell=shell,
    )
    assert done.returncode == 6
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("group", [[], ["pack"]])
def test_a_command_alone_shows_its_help_and_nothing_else(group: list[str]) -> None:
    done = skin(*group)
    assert done.returncode in (0, 2)
    assert "Usage" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("folder", ["/proc/demo", "a file/demo", "a file"])
def test_a_demo_that_cannot_be_written_is_wrong_use(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    code, _, errors = command("demo", folder)
    assert code == 2
    assert folder in errors and "name another folder" in errors
    assert "Traceback" not in errors


class Watching(SilentPresenter):
    """Keep every progress that is reported."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[RunProgress] = []

    def progress(self, progress: RunProgress) -> None:
        self.seen.append(progress)


def test_progress_says_or_more_until_every_archive_is_counted(
    fake_pack: str, tmp_path: Path
) -> None:
    members = {f"{n:02}.png": png(face(n % 5)) for n in range(20)}
    loose = {f"{n}.png": png(face(n)) for n in range(6)}
    tree = write_tree(
        tmp_path / "tree", {**loose, "a.tar": tar_bytes(members), "b.tar": tar_bytes(members)}
    )
    watching = Watching()
    skinbatch.score(tree, tmp_path / "out", engine="local", pack=fake_pack, presenter=watching)
    assert not watching.seen[0].total_known
    assert all(seen.left_s is None for seen in watching.seen if not seen.total_known)

    # The photos that an earlier run has counted are known at once.
    (tree / "c.png").write_bytes(png(face(3)))
    watching = Watching()
    skinbatch.score(tree, tmp_path / "out", engine="local", pack=fake_pack, presenter=watching)
    assert watching.seen[0].total_known
    assert watching.seen[-1].photos_total == 47


def test_since_leaves_out_what_is_old_and_never_what_was_planned_before(
    fake_pack: str, tmp_path: Path
) -> None:
    tree = write_tree(tmp_path / "tree", {f"{n}.png": png(face(n)) for n in range(6)})
    week, now = 7 * 86_400, time.time()
    for name in ("0.png", "1.png", "2.png"):
        os.utime(tree / name, (now - week, now - week))
    report = skinbatch.score(tree, tmp_path / "out", engine="local", pack=fake_pack, since="1d")
    assert (report.exit_code, report.rows) == (0, 3)
    assert report.skipped["(modified before --since)"] == 3

    # All photos become older; those with a row keep it.
    for path in tree.iterdir():
        os.utime(path, (now - week, now - week))
    (tree / "new.png").write_bytes(png(face(2)))
    report = skinbatch.score(tree, tmp_path / "out", engine="local", pack=fake_pack, since="1d")
    assert (report.exit_code, report.rows) == (0, 4)
    assert set(rows(tmp_path / "out")) == {"3.png", "4.png", "5.png", "new.png"}
    assert skinbatch.verify(tmp_path / "out").differences == []

    # Without --since, nothing is left out.
    assert skinbatch.score(tree, tmp_path / "out", engine="local", pack=fake_pack).rows == 7


def test_since_on_an_empty_night_has_nothing_to_do_and_on_a_bare_listing_is_refused(
    album: Path, fake_pack: str, tmp_path: Path
) -> None:
    report = skinbatch.score(
        album, tmp_path / "out", engine="local", pack=fake_pack, since="2999-01-01"
    )
    assert (report.exit_code, report.nothing_to_do, report.rows) == (0, True, 0)
    listing = write_listing(
        tmp_path / "list.csv", [f"album/{path.name}" for path in album.iterdir()]
    )
    with pytest.raises(UsageError, match="does not give its modification time"):
        skinbatch.score(listing, tmp_path / "other", engine="local", pack=fake_pack, since="1d")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("45s", 45),
        ("30m", 1800),
        ("6h", 21600),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1.5h", 5400),
    ],
)
def test_lengths_of_time_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("wrong", ["", "six hours", "6x", "-1", "0", "inf", "nan", "h6", "6h30"])
@pytest.mark.parametrize("read", [seconds_of, moment_of])
def test_what_is_no_time_is_refused(wrong: str, read: Callable[[str], object]) -> None:
    with pytest.raises(ValueError):
        read(wrong)


@pytest.mark.slow
def test_runs_that_overlap_exclude_each_other(fake_pack: str, tmp_path: Path) -> None:
    tree = write_tree(
        tmp_path / "tree", {f"{n:04}.png": png(face(n % 7, 0, n % 100)) for n in range(1500)}
    )
    settings = tmp_path / "settings.toml"
    settings.write_text("[engine]\nbatch_size = 1\n")  # so that there is time
    arguments = [
        "score",
        str(tree),
        str(tmp_path / "out"),
        "--engine",
        "local",
        "--pack",
        fake_pack,
        "--json",
    ]
    first = subprocess.Popen(
        [*COMMAND, *arguments, "--config", str(settings)], stdout=subprocess.PIPE, text=True
    )
    while not (tmp_path / "out/_skinbatch/claim.json").exists():
        assert first.poll() is None
        time.sleep(0.1)
    with ThreadPoolExecutor() as pool:
        second, third = pool.map(
            lambda more: skin(*arguments, *more), [(), ("--exit-zero-on", "7")]
        )
    assert first.poll() is None, "it was over before the others looked"
    assert second.returncode == 7
    assert "is held by another run" in json.loads(second.stdout)["message"]
    assert (third.returncode, json.loads(third.stdout)["exit_code"]) == (0, 7)
    out, _ = first.communicate(timeout=240)
    assert (first.returncode, json.loads(out)["rows"]) == (0, 1500)
