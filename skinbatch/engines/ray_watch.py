"""Limit what Ray would wait for forever: a node that a worker fits on, and a head that is gone."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

import ray
from ray._private import state

from skinbatch.engines.shares import Node, amounts
from skinbatch.errors import StoreError

# Seconds between two looks at the cluster, and between two knocks at its head.
_LOOK_S = 4.0
_ASK_S = 2.0
# Seconds before the user is told that no node is large enough, and that all nodes are in use.
# Starting a worker takes some seconds anyway.
_TELL_S = 5.0
_TELL_BUSY_S = 30.0
# Seconds to wait for a node that the cluster lacks and no known autoscaler can add.
_NOWHERE_S = 45.0
# Seconds to wait for a node that is in use, or that the autoscaler may add.
_BUSY_S = 1800.0

# Ray's calls wait for a head that is gone, and after a minute Ray ends the whole program. This
# limit is shorter, so that the run ends in order.
_HEAD_S = 35.0
_KNOCK_S = 3.0
_LAST_PORT = 65_535


class NotPlaced(StoreError):
    """Report that no worker could be started. The message names what is missing."""


class HeadLost(StoreError):
    """Report that the head of the Ray cluster does not answer, or no longer."""


class Placement:
    """Watch the workers of a run while none of them has a place.

    Args:
        head: the watch of the cluster's head.
        cpus, gpus: what each worker needs.
        timeout_s: `[engine] start_timeout_s`.
        possible: returns the nodes that the autoscaler may add.
    """

    def __init__(
        self,
        head: HeadWatch,
        cpus: float,
        gpus: float,
        timeout_s: float | None,
        possible: Callable[[], Collection[Node]],
    ) -> None:
        self._head = head
        self._cpus, self._gpus = cpus, gpus
        self._timeout_s = timeout_s
        self._possible = possible
        self._started = self._looked = time.monotonic()
        self._noted: set[float] = set()
        self._again = False

    def begin(self) -> None:
        """Restart the wait when the last worker with a place is gone.

        Its machine may come back, as spot machines do.
        """
        self._started, self._noted, self._again = time.monotonic(), set(), True

    def look(self, actors: Iterable[Any]) -> str | None:
        """Return a new message for the user, or None. Raises NotPlaced after the longest wait."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return None
        self._looked = now
        self._head.require()
        if any(_has_place(actor) for actor in actors):
            self._started = now  # building models may take any time
            return None

        wanting, patience, tell_after = self._wanting()
        limit = self._timeout_s or patience
        waited = now - self._started
        if waited > limit:
            raise NotPlaced(
                f"no worker could be started within {limit:g} s: {wanting}; nothing is lost, and the same command tries again "
                "(start_timeout_s in [engine] sets how long it waits)"
            )
        if waited < tell_after or tell_after in self._noted:
            return None
        self._noted.add(tell_after)
        return f"no worker is running: {wanting}; waiting for up to {limit:g} s"

    def _wanting(self) -> tuple[str, float, float]:
        """Return what is missing, how long to wait for it, and after how long to tell the user."""
        up = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        need = f"each needs {amounts(self._cpus, self._gpus)}"
        if any(self._fits(has.get("CPU", 0), has.get("GPU", 0)) for has in up):
            free = ray.available_resources()
            left = amounts(free.get("CPU", 0), free.get("GPU", 0) if self._gpus else 0)
            return f"{need}, and the cluster has {left} free at the moment", _BUSY_S, _TELL_BUSY_S
        if any(self._fits(node.cpus, node.gpus) for node in self._possible()):
            return (
                f"{need}, and the autoscaler has not added a node with that yet",
                _BUSY_S,
                _TELL_S,
            )

        most_cpus = max((has.get("CPU", 0) for has in up), default=0)
        most_gpus = max((has.get("GPU", 0) for has in up), default=0)
        wanting = (
            f"{need}, and no node of the cluster has that (at most {amounts(most_cpus, most_gpus)})"
        )
        return wanting, _BUSY_S if self._again else _NOWHERE_S, _TELL_S

    def _fits(self, cpus: float, gpus: float) -> bool:
        return cpus >= self._cpus and gpus >= self._gpus


def _has_place(actor: Any) -> bool:
    """Return whether Ray has begun to start the actor's process on a node."""
    return bool(state.actors(actor._actor_id.hex()).get("Pid"))


class HeadWatch:
    """Check the head's port from time to time.

    address: `host:port`, or None if unknown. lost: the head is gone, and calls to Ray no longer
    return.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._answered = self._asked = time.monotonic()
        self._unanswered = 0
        self.lost = False

    def look(self) -> None:
        """Raise HeadLost if the head has not answered for too long.

        It is checked every few seconds only; other calls return at once.
        """
        now = time.monotonic()
        if now - self._asked >= _ASK_S:
            self._ask()

    def require(self) -> None:
        """Wait until the head answers, before a call that depends on it.

        Raises HeadLost if it does not answer.
        """
        while not self._ask():
            time.sleep(_ASK_S)

    def _ask(self) -> bool:
        self._asked = time.monotonic()
        if self._address is None:
            return True
        try:
            knock(self._address, _KNOCK_S)
        except OSError as e:
            self._unanswered += 1
            silent = time.monotonic() - self._answered
            if silent > _HEAD_S and self._unanswered > 2:  # this process may have been delayed
                self.lost = True
                raise HeadLost(
                    f"the head of the Ray cluster at {self._address} has not answered for {silent:.0f} s ({e}); everything "
                    "committed is kept; run the same command again once the cluster is back"
                ) from None
            return False
        self._answered, self._unanswered = time.monotonic(), 0
        return True


def knock(address: str, timeout_s: float) -> None:
    """Raise OSError if nothing listens at `host:port`. Other forms of address are not checked.

    Raises ValueError for a number that is no port.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        if int(port) > _LAST_PORT:
            raise ValueError(f"there is no port {port}")
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
