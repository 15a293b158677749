"""Count the requests of this process to stores, those that were repeated, and the bytes moved."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from skinbatch.storage.unreachable import reason

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
# Names of the counts, which are fields of a run's record too.
COUNTS = (
    "requests_retried",
    "requests_throttled",
    "requests_get",
    "requests_put",
    "bytes_read",
    "bytes_written",
)
# Failed attempts of a request from which on it counts as trouble.
_LASTING = 2


# Operations of S3 that are billed like a put, and those that are billed like a get. Deletes are
# free.
_PUTS = frozenset(
    (
        "PutObject",
        "ListObjectsV2",
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
    )
)
_GETS = frozenset(("GetObject", "HeadObject"))


class Traffic:
    """Count requests and bytes.

    requests_get, requests_put: attempts at requests to S3, by how they are billed: reads of objects,
    and writes and listings. bytes_read, bytes_written: of objects and local files.
    requests_retried: requests, or rests of bodies, that were requested again. requests_throttled:
    answers that asked for fewer requests (429, 503, SlowDown). trouble: the last reason why a
    request failed at least twice; "" if none did.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        self._listener: Callable[[str], None] | None = None
        self.trouble = ""

    def all(self) -> Mapping[str, int]:
        """Return the counts since the process began."""
        with self._lock:
            return dict(self._counts)

    def since(self, before: Mapping[str, int]) -> Mapping[str, int]:
        """Return the increase of the counts since an earlier result of `all`."""
        return {name: count - before.get(name, 0) for name, count in self.all().items()}

    def read(self, count: int) -> None:
        """Count bytes that were read."""
        with self._lock:
            self._counts["bytes_read"] += count

    def written(self, count: int) -> None:
        """Count bytes that were written."""
        with self._lock:
            self._counts["bytes_written"] += count

    def retried(self) -> None:
        with self._lock:
            self._counts["requests_retried"] += 1

    @contextmanager
    def heard_by(self, listener: Callable[[str], None]) -> Iterator[None]:
        """Call `listener` with every trouble within the context, from any thread."""
        before, self._listener = self._listener, listener
        try:
            yield
        finally:
            self._listener = before

    def answered(
        self,
        attempts: int,
        response: tuple[Any, dict[str, Any]] | None = None,
        caught_exception: Exception | None = None,
        operation: Any = None,
        **_: Any,
    ) -> None:
        """Handle botocore's event `needs-retry`, which follows every attempt.

        attempts: counted from 1. response: None if there was an exception instead. operation:
        botocore's model of the request.
        """
        self._note(attempts, response, caught_exception)
        name = getattr(operation, "name", "")
        with self._lock:
            self._counts["requests_get"] += name in _GETS
            self._counts["requests_put"] += name in _PUTS
            self._counts["requests_retried"] += attempts > 1
            if response is not None:
                code = str(response[1].get("Error", {}).get("Code", ""))
                throttled = (
                    getattr(response[0], "status_code", 0) in _THROTTLED or code in _THROTTLED_CODES
                )
                self._counts["requests_throttled"] += throttled

    def _note(
        self, attempts: int, response: tuple[Any, dict[str, Any]] | None, error: Exception | None
    ) -> None:
        trouble = None
        if error is not None:
            trouble = reason(error)
        elif response is not None and getattr(response[0], "status_code", 0) >= 500:
            code = response[1].get("Error", {}).get("Code", "")
            trouble = f"the store answers {response[0].status_code} {code}".rstrip()
        if trouble is None or attempts < _LASTING:
            return

        self.trouble = trouble
        if self._listener is not None:
            self._listener(trouble)


# The counts of this process.
TRAFFIC = Traffic()
