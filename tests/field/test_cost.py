"""Test that a run records what it took, and that `status` and the report show it with its price."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faces import face, png, write_tree
from tests.field.in_process import command, score

PRICES = {"currency": "EUR", "cpu_worker_hour": 3600.0}  # a EUR for each second


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(
        tmp_path / "photos", {f"{n:02}.png": png(face(n % 6, 1, n)) for n in range(9)}
    )


def test_status_and_report_give_the_cost_of_a_run(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    dest = tmp_path / "out"
    report = score(tree, dest, fake_pack, prices=PRICES)
    seconds = report.cost.worker_seconds["cpu"]
    assert 0 < seconds < 60
    assert report.cost.photos == 9
    assert report.cost.photos_per_worker_hour == pytest.approx(9 / seconds * 3600)
    assert report.money == pytest.approx(seconds)
    assert report.currency == "EUR"
    tables = sum(path.stat().st_size for path in dest.rglob("*.parquet"))
    photos = sum(path.stat().st_size for path in tree.iterdir())
    assert report.cost.bytes_written >= tables
    assert report.cost.bytes_read >= photos

    code, out, _ = command("status", str(dest), "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["currency"], found["money"]) == ("EUR", pytest.approx(seconds, rel=0.01))
    assert found["photos_per_worker_hour"] == pytest.approx(9 / seconds * 3600, rel=0.01)

    # Prices of a settings file win over those of the run.
    dollars = tmp_path / "dollars.toml"
    dollars.write_text('[prices]\ncurrency = "USD"\ncpu_worker_hour = 7200\n')
    _, out, _ = command("status", str(dest), "--config", str(dollars))
    lines = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert "photos per worker-hour" in lines["cost"] and lines["cost"].endswith(" USD")
    assert " read, " in lines["traffic"]

    page = tmp_path / "report.html"
    assert command("report", str(dest), "-o", str(page))[0] == 0
    assert "photos per worker-hour" in page.read_text()
    assert " EUR</td>" in page.read_text()


def test_without_prices_there_is_no_money(tree: Path, fake_pack: str, tmp_path: Path) -> None:
    report = score(tree, tmp_path / "out", fake_pack)
    assert (report.money, report.currency) == (None, None)
    _, out, _ = command("status", str(tmp_path / "out"))
    (line,) = (line for line in out.splitlines() if line.startswith("  cost"))
    assert line.endswith("photos per worker-hour")


def test_prices_without_a_currency_end_the_command(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[prices]\ngpu_worker_hour = 1.5\n")
    code, _, err = command("score", str(tree), str(tmp_path / "out"), "--config", str(wrong))
    assert (code, "prices need a currency" in err) == (2, True)
    assert not (tmp_path / "out").exists()
