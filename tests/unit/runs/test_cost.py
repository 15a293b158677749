"""Test what a run is said to have taken: worker-hours, money, bytes."""

from __future__ import annotations

import pytest

from skinbatch.config import PriceSettings, parse_config
from skinbatch.engines.pool import WorkerReady
from skinbatch.engines.worker_time import WorkerTime
from skinbatch.errors import UsageError
from skinbatch.runs.cost import Cost, amount, prices_of, size, worker_time

RUN = {
    "photos_scored": 7200,
    "worker_seconds": {"cpu": 1800.0, "gpu": 5400.0},
    "requests_get": 20_000,
    "requests_put": 1_000,
    "bytes_read": 10**9,
    "bytes_written": 10**6,
}


def test_photos_are_counted_by_the_worker_hour_and_parts_by_their_prices() -> None:
    cost = Cost.of_run(RUN)
    assert (cost.worker_hours, cost.photos_per_worker_hour) == (2.0, 3600.0)
    prices = PriceSettings(
        currency="EUR",
        cpu_worker_hour=0.1,
        gpu_worker_hour=2,
        thousand_gets=0.01,
        thousand_puts=0.5,
    )
    assert cost.money(prices) == pytest.approx(0.05 + 3.0 + 0.2 + 0.5)
    assert cost.money(PriceSettings(currency="EUR", gpu_worker_hour=2)) == pytest.approx(3.0)
    assert cost.money(PriceSettings()) is None
    assert cost.money(PriceSettings(currency="EUR")) is None


def test_the_record_of_an_older_version_has_no_cost() -> None:
    cost = Cost.of_run({"photos_scored": 12})
    assert (cost.worker_hours, cost.photos_per_worker_hour, cost.bytes_read) == (0, None, 0)


def test_the_prices_of_the_run_are_used_unless_others_are_given() -> None:
    run = {"prices": {"currency": "EUR", "cpu_worker_hour": 1.0}}
    assert prices_of(run, PriceSettings()).cpu_worker_hour == 1.0
    assert prices_of(run, PriceSettings(currency="USD", cpu_worker_hour=3)).currency == "USD"
    assert not prices_of({}, PriceSettings()).given


def test_prices_without_a_currency_are_refused() -> None:
    with pytest.raises(UsageError, match="setting `prices`: prices need a currency"):
        parse_config({"prices": {"gpu_worker_hour": 1.5}})
    assert not parse_config({"prices": {"currency": "EUR"}}).prices.given


def test_a_worker_counts_from_when_it_is_ready() -> None:
    now = 100.0
    time = WorkerTime(lambda: now)
    time.ready(WorkerReady(0, "CPU, 2 threads", "a"))
    now = 110.0
    time.ready(WorkerReady(1, "NVIDIA H200", "b"))
    assert time.seconds() == {"cpu": 10.0, "gpu": 0.0}

    now = 130.0
    time.ready(WorkerReady(0, "CPU, 2 threads", "a"))  # replaced after a death
    time.ready(WorkerReady(1, "CPU, 8 threads", "c"))  # replaced on a machine without a GPU
    now = 140.0
    assert time.seconds() == {"cpu": 50.0, "gpu": 20.0}


def test_workers_cost_nothing_between_their_release_and_their_return() -> None:
    now = 0.0
    time = WorkerTime(lambda: now)
    for worker in range(3):
        time.ready(WorkerReady(worker, "CPU, 2 threads", "a"))
    now = 10.0
    time.released({0, 2, 7})  # number 7 never was ready
    now = 100.0
    assert time.seconds() == {"cpu": 120.0}

    time.ready(WorkerReady(2, "CPU, 2 threads", "b"))
    now = 110.0
    assert time.seconds() == {"cpu": 140.0}


def test_amounts_show_the_digits_that_matter() -> None:
    assert [amount(money, "EUR") for money in (0.0, 0.00123, 0.5, 12, 1234.5)] == [
        "0.00 EUR",
        "0.0012 EUR",
        "0.5 EUR",
        "12.00 EUR",
        "1,234.50 EUR",
    ]
    assert [size(count) for count in (0, 999, 1500, 2.5e9)] == ["0 B", "999 B", "1.5 kB", "2.5 GB"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.024, "0.024 s of CPU workers"),
        (8.64, "8.6 s of CPU workers"),
        (754.0, "12.6 min of CPU workers"),
        (9_000_000.0, "2,500.0 h of CPU workers"),
    ],
)
def test_the_time_of_workers_is_told_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert worker_time({"cpu": seconds}) == text


def test_the_time_of_each_kind_of_worker_is_told() -> None:
    spent = worker_time({"cpu": 60.0, "gpu": 7200.0})
    assert spent == "60 s of CPU workers, 2.0 h of GPU workers"
