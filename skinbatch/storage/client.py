"""Create the S3 clients of this process, and translate their errors for users."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import botocore.exceptions as bx
from botocore import UNSIGNED
from botocore.config import Config

from skinbatch.config import StorageSettings
from skinbatch.errors import (
    ChangedError,
    ForbiddenError,
    NotFoundError,
    SkinbatchError,
    StoreError,
    UsageError,
    memory_is_full,
)
from skinbatch.logs import event
from skinbatch.redact import redacted
from skinbatch.storage.traffic import TRAFFIC
from skinbatch.storage.unreachable import is_unreachable, reason

_WRONG_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "AuthorizationHeaderMalformed",
}
_CREDENTIALS_HELP = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with [storage] profile, "
    "or read a public bucket with [storage] anonymous = true"
)
_NO_CREDENTIALS = (
    bx.NoCredentialsError,
    bx.PartialCredentialsError,
    bx.CredentialRetrievalError,
    bx.TokenRetrievalError,
    bx.SSOError,
)
# Errors of servers for a key that no object can have, such as one with 2,000 characters.
_IMPOSSIBLE = ("KeyTooLongError", "InvalidObjectName", "XMinioInvalidObjectName")
_lock = threading.Lock()
_clients: dict[tuple[int, StorageSettings, bool], Any] = {}


def s3_client(settings: StorageSettings, anonymous: bool, *, connect_s: float = 10.0) -> Any:
    """Return the client for these settings, which threads share.

    Each process has its own, because connections do not survive a fork. Raises UsageError.
    """
    key = (os.getpid(), settings, anonymous)
    with _lock:
        if key not in _clients:
            _clients[key] = _connect(settings, anonymous, connect_s)
        return _clients[key]


def _connect(settings: StorageSettings, anonymous: bool, connect_s: float) -> Any:
    path_style = (
        settings.path_style if settings.path_style is not None else bool(settings.endpoint_url)
    )
    config = Config(
        signature_version=UNSIGNED if anonymous else None,
        retries={"mode": "adaptive", "total_max_attempts": settings.max_attempts},
        connect_timeout=min(connect_s, settings.timeout_s),
        read_timeout=settings.timeout_s,
        max_pool_connections=64,
        tcp_keepalive=True,
        s3={
            "addressing_style": "path"
            if path_style
            else "virtual"
            if settings.path_style is False
            else "auto"
        },
        # Other servers than Amazon's lack the newer checksums, or compute them over the wrong
        # range.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with s3_errors("s3"):
        try:
            session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
            client = session.client("s3", endpoint_url=settings.endpoint_url, config=config)
        except bx.HTTPClientError:
            raise
        except bx.BotoCoreError as e:  # no store has been contacted yet
            wrong = mapped("s3", e)
            raise wrong if isinstance(wrong, UsageError) else UsageError(str(wrong)) from None
        except ValueError as e:
            raise UsageError(
                f"{e}; [storage] endpoint_url, or AWS_ENDPOINT_URL, is like http://localhost:9000"
            ) from None
    client.meta.events.register("needs-retry.s3", TRAFFIC.answered)
    client.meta.events.register_first("before-call.s3.DeleteObjects", _add_content_md5)
    return client


def _add_content_md5(params: dict[str, Any], **_: Any) -> None:
    """Add Content-MD5, without which older servers refuse a batch of deletes.

    boto3 no longer sends it.
    """
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


@contextmanager
def s3_errors(uri: str, unchanged: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Translate exceptions of boto3 within the context into this package's errors, naming `uri`.

    This includes exceptions without a class of their own, such as credentials that expire while
    they are renewed, or an answer that boto3 cannot read. unchanged: exceptions that are raised as
    they are.
    """
    ours: tuple[type[Exception], ...] = (SkinbatchError, *unchanged)
    try:
        yield
    except ours:
        raise
    except (bx.BotoCoreError, bx.ClientError) as e:
        raise mapped(uri, e) from None  # the original text may hold credentials
    except Exception as e:
        if memory_is_full(e):
            raise
        message = f"{type(e).__name__}: {redacted(str(e))}"
        event(
            "client", logging.WARNING, message=message, traceback=redacted(traceback.format_exc())
        )
        raise StoreError(f"{uri}: {message}") from None


def mapped(uri: str, e: bx.BotoCoreError | bx.ClientError) -> StoreError | UsageError:
    if isinstance(e, bx.ClientError):
        return _answered(uri, e)
    if isinstance(e, _NO_CREDENTIALS):
        return UsageError(f"{uri}: no usable credentials ({type(e).__name__}): {_CREDENTIALS_HELP}")
    if isinstance(
        e, bx.ProfileNotFound | bx.ParamValidationError | bx.NoRegionError | bx.InvalidRegionError
    ):
        return UsageError(f"{uri}: {redacted(str(e))}")
    if is_unreachable(e):
        return StoreError(f"{uri}: {redacted(reason(e))}")
    return StoreError(f"{uri}: {type(e).__name__}: {redacted(str(e))}")


def _answered(uri: str, e: bx.ClientError) -> StoreError | UsageError:
    error = e.response.get("Error", {})
    code, text = str(error.get("Code", "")), redacted(str(error.get("Message") or ""))
    http = e.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    message = f"{uri}: {code}: {text}" if text else f"{uri}: {code}"
    if code == "NoSuchBucket":
        return UsageError(
            f"{uri}: there is no such bucket; create it, or check its name and [storage] endpoint_url"
        )
    if code == "InvalidBucketName":
        return UsageError(message)
    if code in _WRONG_CREDENTIALS:
        return UsageError(
            f"{uri}: the server does not accept the credentials ({code}): {_CREDENTIALS_HELP}"
        )
    if code in ("ExpiredToken", "RequestTimeTooSkewed", "TokenRefreshRequired"):
        # This is no problem of the object, so it must not become a row.
        return StoreError(
            f"{uri}: {code}: renew the credentials or set the clock, then run the same command again"
        )
    if http == 404 or code in ("NoSuchKey", "NotFound", *_IMPOSSIBLE):
        return NotFoundError(f"{uri}: not found")
    if code == "InvalidObjectState":
        return ForbiddenError(f"{uri}: in cold storage; restore it first")
    if http in (401, 403) or code == "AccessDenied":
        return ForbiddenError(f"{uri}: access denied ({code})")
    if http == 412 or code == "PreconditionFailed":
        return ChangedError(f"{uri}: changed since it was listed")
    return StoreError(message)
