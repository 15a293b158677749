"""Define the command that tells what a run will take: `plan`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from skinbatch.cli.options import (
    ConfigFile,
    Dest,
    Device,
    EngineName,
    Json,
    PackName,
    RayAddress,
    Source,
    print_json,
)
from skinbatch.config import load_config
from skinbatch.console import counted, presenter_of
from skinbatch.engines.terminal import clock
from skinbatch.runs.cost import amount, size, worker_time

if TYPE_CHECKING:
    from skinbatch.engines.forecast import Forecast, Range


def plan(
    source: Source,
    dest: Dest,
    sample: Annotated[
        int,
        typer.Option(
            "--sample", min=0, metavar="N", help="Photos that are really scored; 0 to only count."
        ),
    ] = 200,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Number of workers that the run will have. (default: as many as the sample has)",
        ),
    ] = None,
    pack: PackName = None,
    engine: EngineName = None,
    ray_address: RayAddress = None,
    device: Device = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Tell what `score` would do and take: photos, time and cost, from a sample that is really scored.

    DEST stays as it is: the tables of the sample are discarded. Prices come from [prices] of the
    settings. The range behind a number is a 95 % interval over parts of the sample.
    """
    from skinbatch.engines.forecast import forecast

    settings = load_config(config)
    with presenter_of(settings.run.log_format) as presenter:
        estimate = forecast(
            source,
            dest,
            sample=sample,
            workers=workers,
            pack=pack,
            engine=engine,
            ray_address=ray_address,
            device=device,
            config=settings,
            presenter=presenter,
        )
    if as_json:
        rate = None if estimate.cost is None else estimate.cost.photos_per_worker_hour
        print_json(dataclasses.asdict(estimate) | {"photos_per_worker_hour": rate})
    else:
        print("\n".join(lines_of(estimate)))


def lines_of(estimate: Forecast) -> list[str]:
    """Return a forecast as text."""
    about = "" if estimate.counted else "about "
    shards = _number(estimate.shards, "shard")
    lines = [
        f"{about}{estimate.left:,} of {about}{estimate.photos:,} photos are to be scored",
        f"  photos   {about}{estimate.photos:,} in {size(estimate.bytes)}: {estimate.loose:,} loose, {shards}",
        f"  scored   {estimate.scored:,} already; {about}{estimate.left:,} left, {size(estimate.left_bytes)}",
    ]
    if estimate.skipped:
        lines.append(f"  skipped  {counted(estimate.skipped)}")

    if estimate.sample is not None and estimate.seconds is not None and estimate.cost is not None:
        sample, currency = estimate.sample, estimate.currency
        failed = f" ({sample.failed} failed)" if sample.failed else ""
        lines.append(
            f"  sample   {sample.photos} photos scored{failed} by {_number(sample.workers, 'worker')} ({sample.resource}), "
            f"{_shown(sample.worker_seconds, lambda s: f'{s:.3g} s')} of a worker for each"
        )
        time = _shown(estimate.seconds, clock)
        lines.append(f"  time     about {time} with {_number(estimate.workers or 1, 'worker')}")
        rate = estimate.cost.photos_per_worker_hour

        def money(value: float) -> str:
            return amount(value, currency)

        spent = worker_time(estimate.cost.worker_seconds)
        cost = f"  cost     {spent}, {rate:,.0f} photos per worker-hour"
        lines.append(cost if estimate.money is None else f"{cost}, {_shown(estimate.money, money)}")
        lines.append(
            f"  traffic  {size(estimate.cost.bytes_read)} to read; on S3 about {estimate.cost.requests_get:,} get and "
            f"{estimate.cost.requests_put:,} put requests"
        )
    lines += [f"  note     {note}" for note in estimate.notes]
    return lines


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _shown(estimate: Range, text: Callable[[float], str]) -> str:
    """Return an estimate as text, with its interval if it has one."""
    if estimate.low is None or estimate.high is None:
        return text(estimate.value)
    return f"{text(estimate.value)} ({text(estimate.low)} to {text(estimate.high)})"
