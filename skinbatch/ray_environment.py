"""What Ray reads from the environment when it is imported, and what it does to signals. Call `settle` before ray is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def _token_at_hand() -> bool:
    """Ray's token lies where Ray looks for it."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or os.path.exists(os.path.expanduser("~/.ray/auth_token"))


def settle() -> None:
    """Leaves alone what the user has set.

    Servers that find a token demand it, but clients send it only when told to before ray is imported. Where there is none
    yet, embedded Ray makes one, and fails when told to use it before that. Where ray is imported already, embedded Ray still
    sees to it by itself, unless it is told to now, when its client hears no more of it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if "ray" not in sys.modules and _token_at_hand():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextmanager
def without_sigterm_handler(utils: Any) -> Iterator[None]:
    """Ray that is started within it leaves SIGTERM to whom it belongs. It would put a handler in place that ends the program
    with 15 wherever it is, from then on. utils: the module ray._private.utils."""
    before = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before


@contextmanager
def with_text_as_command(utils: Any) -> Iterator[None]:
    """Let Ray start within it although an argument of this program is not UTF-8, which Ray records and cannot encode.

    utils: the module ray._private.utils.
    """
    before = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: before().encode("utf-8", "backslashreplace").decode()
    try:
        yield
    finally:
        utils.get_entrypoint_name = before
