"""Define the errors, by who has to act on them.

Code of this package raises one of these, or lets the exception of a defect through.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from skinbatch.redact import redacted


class SkinbatchError(Exception):
    """Base of every error that has a clear message for the user. Credentials in it are redacted.

    `exit_code` is the exit code of the command.
    """

    exit_code = 1

    def __init__(self, *message: object) -> None:
        super().__init__(*(redacted(part) if isinstance(part, str) else part for part in message))


class UsageError(SkinbatchError):
    """Report wrong use or wrong settings. Nothing was touched.

    The message names the file or setting and the way out.
    """

    exit_code = 2


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Name the extra of skinbatch that an import needs.

    Raises UsageError if the import fails because a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as e:
        raise UsageError(
            f"{e.name} is not installed: pip install 'skinbatch[{name}]', or in a clone '.[{name}]'"
        ) from e


class UnfinishedWarning(UserWarning):
    """Warn a reader that not all photos of a scoring have results yet."""


class ColumnNeededError(UsageError):
    """Report a Parquet file with several columns of images, none of which a setting names."""


class PackError(UsageError):
    """Report a model pack that is missing, malformed, or does not have its recorded hashes."""


class ClaimError(SkinbatchError):
    """Report that another run is using the destination."""

    exit_code = 7


class StoreError(SkinbatchError):
    """Report a network or server error that outlasted the retries.

    It never becomes a row: the unit stays open.
    """

    exit_code = 4


class NotFoundError(StoreError):
    """Report an object that does not exist (404, ENOENT)."""


class ForbiddenError(StoreError):
    """Report an object that may not be read or written (403, EACCES)."""


class DiskError(ForbiddenError):
    """Report a file whose bytes the disk cannot read (EIO)."""


class ChangedError(StoreError):
    """Report an object that is no longer the requested version (412, or another mtime)."""


class ModelOutputError(SkinbatchError):
    """Report a model that returned NaN or infinite numbers. The message names the model.

    The scorer turns it into `model_error` rows.
    """


class UnsupportedOpError(SkinbatchError):
    """Report an operator of mmcv that a model needs and that is not built here.

    The message names the operator.
    """


class TableError(SkinbatchError):
    """Report a table file that is damaged, was not written by skinbatch, or has an unknown schema."""

    exit_code = 5


class ObjectTooLargeError(StoreError):
    """Report an object with more bytes than the caller allows. None of them were kept."""


# Texts of errors for which Python, torch, OpenCV and ONNX Runtime have no exception of their own.
# Python may have no memory for a lock ("can't allocate read lock") or for a thread's stack.
_SIGNS_OF_FULL_MEMORY = (
    "can't allocate memory",
    "can't allocate lock",
    "can't allocate read lock",
    "can't start new thread",
    "Insufficient memory",
    "bad allocation",
    "std::bad_alloc",
)


def memory_is_full(error: BaseException) -> bool:
    """Return whether the error means that the machine's memory is full.

    Recognises errors of Python, torch, OpenCV and ONNX Runtime. Full GPU memory does not count.
    """
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    message = str(error)
    return any(sign in message for sign in _SIGNS_OF_FULL_MEMORY)
