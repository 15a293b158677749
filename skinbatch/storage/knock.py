"""Send one request to an S3 server first, so that a wrong address is reported within seconds."""

from __future__ import annotations

from typing import Any

import botocore.exceptions as bx
import botocore.parsers

from skinbatch.config import StorageSettings
from skinbatch.errors import UsageError
from skinbatch.storage.client import s3_client
from skinbatch.storage.locate import is_s3, split_s3
from skinbatch.storage.unreachable import WAY_OUT, is_unreachable, reason

# The store's own limits are for runs in progress. With them, a wrong port would cost minutes.
_ATTEMPTS = 2
_CONNECT_S = 5.0
_ANSWER_S = 10.0

# Answers of web servers without buckets. A gateway's 502 to 504 is an outage instead.
_NO_STORE = ("400", "404", "405", "501")
_WRONG_REGION = (
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "IllegalLocationConstraintException",
    "301",
)


def knock(uri: str, settings: StorageSettings, *, anonymous: bool = False) -> None:
    """Ask the server of `s3://bucket/key` for one key. Local paths pass.

    Raises:
        UsageError: no S3 server answers at the endpoint, or one of another region. The first real
            request finds every other problem.
    """
    if not is_s3(uri):
        return
    few = {
        "max_attempts": min(_ATTEMPTS, settings.max_attempts),
        "timeout_s": min(_ANSWER_S, settings.timeout_s),
    }
    client = s3_client(settings.model_copy(update=few), anonymous, connect_s=_CONNECT_S)
    endpoint = client.meta.endpoint_url
    try:
        answer = client.list_objects_v2(Bucket=split_s3(uri)[0], MaxKeys=1)
    except Exception as error:
        wrong = _what_is_wrong(error, endpoint)
    else:  # boto3 reads any well-formed page as an empty listing
        listing = any(name in answer for name in ("Name", "KeyCount", "IsTruncated", "Contents"))
        wrong = None if listing else _no_server(endpoint)
    if wrong is not None:
        raise UsageError(f"{uri}: {wrong}")


def _no_server(endpoint: str) -> str:
    return f"the server at {endpoint} is not an S3 server, but perhaps its web console; {WAY_OUT}"


def _what_is_wrong(error: Exception, endpoint: str) -> str | None:
    """Return the message for an error that waiting does not repair; None for any other error."""
    if is_unreachable(error):
        return f"{reason(error)}; {WAY_OUT}"
    if isinstance(error, botocore.parsers.ResponseParserError):
        return _no_server(endpoint)
    if not isinstance(error, bx.ClientError):
        return None

    details: dict[str, Any] = error.response.get("Error", {})
    answer: dict[str, Any] = error.response.get("ResponseMetadata", {})
    code, text = str(details.get("Code", "")), str(details.get("Message") or "")
    status = str(answer.get("HTTPStatusCode"))
    # The answer had no code of S3's own.
    if status in _NO_STORE and code in (
        "",
        "Unknown",
        status,
    ):
        # Servers that speak TLS give this answer to plain HTTP, if any.
        tls = (
            ", or speaks TLS: then write https:// instead of http://"
            if endpoint.startswith("http://")
            else ""
        )
        return f"the server at {endpoint} is not an S3 server ({status}){tls if status == '400' else ''}; {WAY_OUT}"
    region = details.get("Region") or answer.get("HTTPHeaders", {}).get("x-amz-bucket-region")
    if code in _WRONG_REGION and (region or "region" in text.lower()):
        where = f" {region}" if region else ""
        return f"the bucket is in another region{where}; set AWS_DEFAULT_REGION, or region in [storage]"
    return None
