"""Prepare the environment that Ray reads on import, and limit what Ray does to signals.

Call `settle` before ray is imported.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from skinbatch.errors import UsageError

_MODE = "RAY_AUTH_MODE"
_TOKEN = "RAY_AUTH_TOKEN"
# A call of the head that every version of Ray has. The head refuses it if it demands a token and
# gets none.
_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_ASK_S = 5.0


def cluster_address(named: str | None) -> str | None:
    """Return the address of the cluster to connect to: the named one, or RAY_ADDRESS.

    Returns None for embedded Ray.

    Raises:
        UsageError: it is the address of a job server, which RAY_ADDRESS holds for `ray job submit`.
    """
    address = named or os.environ.get("RAY_ADDRESS") or None
    if address is None or not address.startswith(("http://", "https://")):
        return address
    host = urlsplit(address).hostname or "HOST"
    where = "--ray-address" if named else "RAY_ADDRESS"
    raise UsageError(
        f"{where} is {address}, where Ray's job server and dashboard listen; skinbatch needs the cluster's own address, such as "
        f"--ray-address {host}:6379 (or `auto` on a machine of the cluster). You can also submit it to the job server: "
        f"`ray job submit --address {address} -- python -m skinbatch score …`"
    )


def why_not(error: Exception, address: str | None) -> str:
    """Return a sentence that explains why Ray could not be reached or started, with the way out."""
    text = " ".join(str(error).split())
    local = "or use --engine local, which needs no Ray"
    if "Version mismatch" in text:
        versions = re.findall(r"(Ray|Python): ([\w.+]+)", text)
        theirs, ours = versions[: len(versions) // 2], versions[len(versions) // 2 :]
        tell = " and ".join
        return (
            f"the Ray cluster at {address} runs {tell(' '.join(v) for v in theirs)}, this program "
            f"{tell(' '.join(v) for v in ours)}; install the same versions here, or submit it with `ray job submit`"
        )
    if "AF_UNIX" in text or "socket_filepath" in text:
        folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
        return f"the path of Ray's temporary files is too long for sockets ({folder}): set RAY_TMPDIR=/tmp, {local}"
    if address is None and isinstance(error, PermissionError):
        return f"Ray cannot be started on this machine: {text}; set RAY_TMPDIR to a folder that can be written, {local}"
    if address is None:
        return f"Ray cannot be started on this machine: {text}; see its logs in /tmp/ray/session_latest/logs, {local}"
    if "uthentication" in text:
        return (
            f"the Ray cluster at {address} demands a token: put its token into ~/.ray/auth_token or RAY_AUTH_TOKEN, or set "
            f"RAY_AUTH_MODE=disabled if it has none ({text[:200]})"
        )
    if isinstance(error, OSError):
        return (
            f"nothing answers at {address} ({text}); run the same command again once the cluster is up, or correct the address "
            "of its head (HOST:6379)"
        )
    return f"the Ray cluster at {address} cannot be reached: {text}"


def settle(address: str | None = None) -> None:
    """Decide how this process authenticates to Ray, unless the user has decided.

    Ray's clients send a token only if they are configured to before ray is imported. A client that
    sends one cannot use a cluster without tokens, whose actors may not speak to the driver. So a
    named cluster is asked whether it demands one. Embedded Ray always has a token: the user's, or a
    fresh one, which needs no file in a home folder that may not be writable.

    Args:
        address: of a cluster; `auto` for one on this machine, None for embedded Ray.

    Raises:
        UsageError: the cluster demands a token other than the one at hand.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if "ray" in sys.modules or _MODE in os.environ:
        return

    if address is None:
        if _token() is None and "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ[_TOKEN] = secrets.token_hex(32)
        os.environ[_MODE] = "token"
        return

    head = _grpc_address(address)
    if not head:
        return  # Ray reports it when it connects
    demanded = not _lets_in(head, None)
    if demanded and not _lets_in(head, _token()):
        raise UsageError(
            f"the Ray cluster at {address} demands a token, but {'another one is' if _token() else 'there is none'} in "
            "RAY_AUTH_TOKEN or ~/.ray/auth_token; put the cluster's token there"
        )
    os.environ[_MODE] = "token" if demanded else "disabled"


def _token() -> str | None:
    """Return the token from where Ray looks for it; None if there is none."""
    if token := os.environ.get(_TOKEN):
        return token.strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    try:
        return Path(path).read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _grpc_address(address: str) -> str:
    """Return `host:port` of a cluster's head; "" if `auto` finds none.

    For `auto`, it is the cluster that was started last on this machine.
    """
    if address != "auto":
        return address.removeprefix("ray://")
    folder = os.environ.get("RAY_TMPDIR") or (
        "/tmp" if os.name == "posix" else tempfile.gettempdir()
    )
    try:
        return (Path(folder) / "ray/ray_current_cluster").read_text().strip()
    except OSError:
        return ""


def _lets_in(head: str, token: str | None) -> bool:
    """Return whether a head answers a call with this token.

    True for a head that does not answer at all: Ray reports that when it connects.
    """
    import grpc

    proof = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(head, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary(
            _CHECK_ALIVE, request_serializer=bytes, response_deserializer=bytes
        )
        try:
            ask(b"", timeout=_ASK_S, metadata=proof)
        except grpc.RpcError as e:
            return bool(e.code() is not grpc.StatusCode.UNAUTHENTICATED)
    return True


@contextmanager
def without_sigterm_handler(utils: Any) -> Iterator[None]:
    """Keep Ray from handling SIGTERM if it is started within the context.

    Ray's handler would end the program with exit code 15 at any point from then on. utils: the
    module ray._private.utils.
    """
    before = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before


@contextmanager
def with_text_as_command(utils: Any) -> Iterator[None]:
    """Let Ray start although an argument of this program is not UTF-8.

    Ray records the arguments and cannot encode such a one. utils: the module ray._private.utils.
    """
    before = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: before().encode("utf-8", "backslashreplace").decode()
    try:
        yield
    finally:
        utils.get_entrypoint_name = before
