"""How often this process had to ask a store again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

_THROTTLED = (429, 503)
_THROTTLED_CODES = frozenset(
    (
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "BandwidthLimitExceeded",
    )
)


class Traffic:
    """requests_retried: requests, or rests of bodies, that were asked for again. requests_throttled: answers that asked for
    patience (429, 503, SlowDown)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter(requests_retried=0, requests_throttled=0)

    def all(self) -> Mapping[str, int]:
        """Since the process began."""
        with self._lock:
            return dict(self._counts)

    def since(self, before: Mapping[str, int]) -> Mapping[str, int]:
        """What has come on top of what `all` gave before."""
        return {name: count - before.get(name, 0) for name, count in self.all().items()}

    def retried(self) -> None:
        with self._lock:
            self._counts["requests_retried"] += 1

    def answered(self, attempts: int, response: tuple[Any, dict[str, Any]] | None = None, **_: Any) -> None:
        """botocore's event `needs-retry`, after every attempt. attempts: from 1. response: None where there was none."""
        with self._lock:
            self._counts["requests_retried"] += attempts > 1
            if response is not None:
                code = str(response[1].get("Error", {}).get("Code", ""))
                throttled = getattr(response[0], "status_code", 0) in _THROTTLED or code in _THROTTLED_CODES
                self._counts["requests_throttled"] += throttled


TRAFFIC = Traffic()
"""Of this process."""
