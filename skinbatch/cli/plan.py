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
        found = forecast(
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
        rate = None if found.cost is None else found.cost.photos_per_worker_hour
        print_json(dataclasses.asdict(found) | {"photos_per_worker_hour": rate})
    else:
        print("\n".join(lines_of(found)))


def lines_of(found: Forecast) -> list[str]:
    """Return a forecast as text."""
    about = "" if found.counted else "about "
    lines = [
        f"{about}{found.left:,} of {about}{found.photos:,} photos are to be scored",
        f"  photos   {about}{found.photos:,} in {size(found.bytes)}: {found.loose:,} loose, {_number(found.shards, 'shard')}",
        f"  scored   {found.scored:,} already; {about}{found.left:,} left, {size(found.left_bytes)}",
    ]
    if found.skipped:
        lines.append(f"  skipped  {counted(found.skipped)}")

    if found.sample is not None and found.seconds is not None and found.cost is not None:
        sample, currency = found.sample, found.currency
        failed = f" ({sample.failed} failed)" if sample.failed else ""
        lines.append(
            f"  sample   {sample.photos} photos scored{failed} by {_number(sample.workers, 'worker')} ({sample.resource}), "
            f"{_shown(sample.worker_seconds, lambda s: f'{s:.3g} s')} of a worker for each"
        )
        time = _shown(found.seconds, clock)
        lines.append(f"  time     about {time} with {_number(found.workers or 1, 'worker')}")
        rate = found.cost.photos_per_worker_hour

        def money(value: float) -> str:
            return amount(value, currency)

        spent = worker_time(found.cost.worker_seconds)
        cost = f"  cost     {spent}, {rate:,.0f} photos per worker-hour"
        lines.append(cost if found.money is None else f"{cost}, {_shown(found.money, money)}")
        lines.append(
            f"  traffic  {size(found.cost.bytes_read)} to read; on S3 about {found.cost.requests_get:,} get and "
            f"{found.cost.requests_put:,} put requests"
        )
    lines += [f"  note     {note}" for note in found.notes]
    return lines


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _shown(estimate: Range, text: Callable[[float], str]) -> str:
    """Return an estimate as text, with its interval if it has one."""
    if estimate.low is None or estimate.high is None:
        return text(estimate.value)
    return f"{text(estimate.value)} ({text(estimate.low)} to {text(estimate.high)})"
