"""What Ray itself would wait for without end: a node that a worker fits on, and a head that has gone."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

import ray
from ray._private import state

from skinbatch.engines.shares import Node
from skinbatch.errors import StoreError

# Between two looks at the cluster, and between two knocks at its head.
_LOOK_S = 4.0
_ASK_S = 2.0
# Before the user is told: of what no node has, and of what is in use; starting a worker takes some seconds anyway.
_TELL_S = 5.0
_TELL_BUSY_S = 30.0
# How long a worker is waited for that no node can have, and that no autoscaler is known to add.
_NOWHERE_S = 45.0
# How long for one that a node can have as soon as others are done with it, or that the autoscaler may add.
_BUSY_S = 1800.0

# Ray's calls wait for a head that is gone, and after a minute Ray ends the whole program. This is sooner, and ends the run.
_HEAD_S = 35.0
_KNOCK_S = 3.0


class NotPlaced(StoreError):
    """No worker could be started, for want of what the message names."""


class HeadLost(StoreError):
    """The head of the Ray cluster is gone."""


class Placement:
    """Watches the workers of a run while none of them has a place.

    Args:
        head: Of the cluster.
        cpus, gpus: What each worker needs.
        timeout_s: `[engine] start_timeout_s`.
        possible: Asks for nodes that the autoscaler may add.
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
        self._told: set[float] = set()
        self._again = False

    def begin(self) -> None:
        """Begin the wait anew, when the last worker that had a place is gone. Its machine may come back, as spot ones do."""
        self._started, self._told, self._again = time.monotonic(), set(), True

    def look(self, actors: Iterable[Any]) -> str | None:
        """Return what to tell the user, when it is new. Raise NotPlaced when it was waited for long enough."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return None
        self._looked = now
        self._head.require()
        if any(_has_place(actor) for actor in actors):
            self._started = now  # it builds its models, which may take as long as it takes
            return None

        wanting, patience, tell_after = self._wanting()
        limit = self._timeout_s or patience
        waited = now - self._started
        if waited > limit:
            raise NotPlaced(
                f"no worker could be started within {limit:g} s: {wanting}; nothing is lost, the same command tries again "
                "(start_timeout_s in [engine] sets how long it waits)"
            )
        if waited < tell_after or tell_after in self._told:
            return None
        self._told.add(tell_after)
        return f"no worker is running: {wanting}; waiting for up to {limit:g} s"

    def _wanting(self) -> tuple[str, float, float]:
        """What is missing, how long that may be waited for, and after how long the user is told."""
        up = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        need = f"each needs {_amounts(self._cpus, self._gpus)}"
        if any(self._fits(has.get("CPU", 0), has.get("GPU", 0)) for has in up):
            free = ray.available_resources()
            left = _amounts(free.get("CPU", 0), free.get("GPU", 0) if self._gpus else 0)
            return f"{need}, and the cluster has {left} free at the moment", _BUSY_S, _TELL_BUSY_S
        if any(self._fits(node.cpus, node.gpus) for node in self._possible()):
            return f"{need}, and the autoscaler has not added a node with that yet", _BUSY_S, _TELL_S

        most_cpus = max((has.get("CPU", 0) for has in up), default=0)
        most_gpus = max((has.get("GPU", 0) for has in up), default=0)
        wanting = f"{need}, and no node of the cluster has that (at most {_amounts(most_cpus, most_gpus)})"
        return wanting, _BUSY_S if self._again else _NOWHERE_S, _TELL_S

    def _fits(self, cpus: float, gpus: float) -> bool:
        return cpus >= self._cpus and gpus >= self._gpus


def _has_place(actor: Any) -> bool:
    """Whether Ray has begun to start its process on a node."""
    return bool(state.actors(actor._actor_id.hex()).get("Pid"))


def _amounts(cpus: float, gpus: float) -> str:
    texts = [f"{cpus:g} CPU{'' if cpus == 1 else 's'}"]
    texts += [f"{gpus:g} GPU{'' if gpus == 1 else 's'}"] if gpus else []
    return " and ".join(texts)


class HeadWatch:
    """Knocks at the head's port now and then.

    address: `host:port`, None where it is not known. lost: It is gone, and no call of Ray's comes back any more.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._answered = self._asked = time.monotonic()
        self._unanswered = 0
        self.lost = False

    def look(self) -> None:
        """Raise HeadLost when the head has not answered for too long. Asks every few seconds only."""
        now = time.monotonic()
        if now - self._asked >= _ASK_S:
            self._ask()

    def require(self) -> None:
        """Return when the head answers, before a call that would wait for it. Raise HeadLost when it does not."""
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
            if silent > _HEAD_S and self._unanswered > 2:  # one alone may be the first after this process was held up
                self.lost = True
                raise HeadLost(
                    f"the head of the Ray cluster at {self._address} has not answered for {silent:.0f} s ({e}); what is "
                    "committed is kept, the same command goes on once the cluster is back"
                ) from None
            return False
        self._answered, self._unanswered = time.monotonic(), 0
        return True


def knock(address: str, timeout_s: float) -> None:
    """Raise OSError where nobody listens at `host:port`. What is no such address is let through."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
