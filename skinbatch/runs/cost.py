"""Tell what a run has taken: worker-hours, requests, bytes, and money where prices are set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skinbatch.config import PriceSettings

_HOUR_S = 3600.0
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True, slots=True)
class Cost:
    """Hold what a run, or a part of one, takes.

    Attributes:
        worker_seconds: `cpu` or `gpu` -> seconds for which workers existed.
        photos: Number of photos that were scored in them.
        requests_get, requests_put: Requests to S3, by how they are billed (storage.traffic).
        bytes_read, bytes_written: Of source and destination together.
    """

    worker_seconds: Mapping[str, float] = field(default_factory=dict)
    photos: int = 0
    requests_get: int = 0
    requests_put: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> Cost:
        """Return the cost in a run's record. Records of older versions lack parts of it."""
        counts = ("requests_get", "requests_put", "bytes_read", "bytes_written")
        return cls(
            {name: float(seconds) for name, seconds in run.get("worker_seconds", {}).items()},
            int(run.get("photos_scored", 0)),
            *(int(run.get(name, 0)) for name in counts),
        )

    @property
    def worker_hours(self) -> float:
        return sum(self.worker_seconds.values()) / _HOUR_S

    @property
    def photos_per_worker_hour(self) -> float | None:
        """Return the photos scored in an hour of one worker; None if nothing is known."""
        return self.photos / self.worker_hours if self.worker_hours and self.photos else None

    def money(self, prices: PriceSettings) -> float | None:
        """Return the price of all parts whose price is set; None if none is."""
        if not prices.given:
            return None
        parts = (
            (prices.cpu_worker_hour, self.worker_seconds.get("cpu", 0.0) / _HOUR_S),
            (prices.gpu_worker_hour, self.worker_seconds.get("gpu", 0.0) / _HOUR_S),
            (prices.thousand_gets, self.requests_get / 1000),
            (prices.thousand_puts, self.requests_put / 1000),
        )
        return sum((price or 0.0) * amount for price, amount in parts)


def prices_of(run: Mapping[str, Any], prices: PriceSettings) -> PriceSettings:
    """Return `prices` if any is set, otherwise those that the run was started with."""
    if prices.given:
        return prices
    return PriceSettings.model_validate(run.get("prices", {}))


def amount(money: float, currency: str | None) -> str:
    """Return an amount with the digits that matter: `0.0042 EUR`, `1,234.50 EUR`."""
    text = f"{money:,.2f}" if money >= 1 or money == 0 else f"{money:.2g}"
    return f"{text} {currency or ''}".rstrip()


def worker_time(worker_seconds: Mapping[str, float]) -> str:
    """Return for how long workers existed: `8.6 s of CPU workers`, `2.4 h of CPU workers`."""
    return ", ".join(
        f"{_duration(seconds)} of {resource.upper()} workers"
        for resource, seconds in worker_seconds.items()
    )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / _HOUR_S:,.1f} h"


def size(count: float) -> str:
    """Return a number of bytes for people: `1.2 GB`."""
    power = 0
    while count >= 1000 and power < len(_UNITS) - 1:
        count /= 1000
        power += 1
    return f"{count:.0f} {_UNITS[power]}" if power == 0 else f"{count:.1f} {_UNITS[power]}"
