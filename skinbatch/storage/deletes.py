"""Delete many objects of a bucket, also on servers that cannot delete several at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import botocore.exceptions as bx

from skinbatch.errors import NotFoundError
from skinbatch.lookahead import ahead
from skinbatch.storage.client import mapped, s3_errors

# Reasons why one object of many was not deleted, if trying again helps.
_TRANSIENT = frozenset(
    ("InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "OperationAborted")
)
_THREADS = 16


class Deletes:
    """Delete objects of `bucket` together, or one by one if the server cannot delete several."""

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket
        self._together = True

    def delete(self, client: Any, keys: Sequence[str]) -> dict[str, str]:
        """Delete up to 1,000 objects. Return the keys to try again, with the reasons.

        Raises StoreError for an object that may not be deleted.
        """
        if not self._together:
            return self._singly(client, keys)

        request = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        where = f"s3://{self._bucket}"
        try:
            with s3_errors(where, unchanged=(bx.ClientError,)):
                answer = client.delete_objects(Bucket=self._bucket, Delete=request)
        except bx.ClientError as e:
            if not _is_unknown(e):
                raise mapped(where, e) from None
            self._together = False
            return self._singly(client, keys)

        again = {}
        for error in answer.get("Errors", ()):
            refused = mapped(
                f"{where}/{error['Key']}", bx.ClientError({"Error": error}, "DeleteObjects")
            )
            if error.get("Code") in _TRANSIENT:
                again[error["Key"]] = error["Code"]
            elif not isinstance(refused, NotFoundError):
                raise refused
        return again

    def _singly(self, client: Any, keys: Sequence[str]) -> dict[str, str]:
        def delete(key: str) -> None:
            with suppress(NotFoundError), s3_errors(f"s3://{self._bucket}/{key}"):
                client.delete_object(Bucket=self._bucket, Key=key)

        for _ in ahead(keys, delete, _THREADS):
            pass
        return {}


def _is_unknown(e: bx.ClientError) -> bool:
    """Return whether the server lacks this request, like Google's S3; a refusal is different."""
    status = e.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status in (405, 501) or e.response.get("Error", {}).get("Code") in (
        "NotImplemented",
        "MethodNotAllowed",
    )
