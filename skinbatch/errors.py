"""What can go wrong, told apart by who has to act. A file of the house raises one of these or lets a defect through."""

from __future__ import annotations

from skinbatch.redact import redacted


class SkinbatchError(Exception):
    """Base of every error that has a clear message for the user; `exit_code` is the command's. Whatever the message was
    made of, it names no credentials."""

    exit_code = 1

    def __init__(self, *message: object) -> None:
        super().__init__(*(redacted(part) if isinstance(part, str) else part for part in message))


class UsageError(SkinbatchError):
    """Wrong use or settings; nothing was touched. The message names the file or setting and the way out."""

    exit_code = 2


class UnfinishedWarning(UserWarning):
    """A reader is shown less than there is going to be."""


class ColumnNeededError(UsageError):
    """Several columns of a Parquet file hold images, and no setting names the one to score."""


class PackError(UsageError):
    """A model pack that is missing, malformed or does not have its recorded hashes."""


class ClaimError(SkinbatchError):
    """Another run holds the destination."""

    exit_code = 7


class StoreError(SkinbatchError):
    """A network or server error that outlasted the retries. Never becomes a row: the unit stays open."""

    exit_code = 4


class NotFoundError(StoreError):
    """The object is not there (404, ENOENT)."""


class ForbiddenError(StoreError):
    """The object may not be read or written (403, EACCES)."""


class DiskError(ForbiddenError):
    """The disk does not give the bytes of this one file (EIO)."""


class ChangedError(StoreError):
    """The object is no longer the version that was asked for (412, mtime differs)."""


class ModelOutputError(SkinbatchError):
    """A model gave NaN or infinite numbers; the message names the model. The scorer turns it into `model_error` rows."""


class UnsupportedOpError(SkinbatchError):
    """A model needs an operator of mmcv that is not built here; the message names it."""


class TableError(SkinbatchError):
    """A table file that is damaged, not ours, or of a schema that this version does not know."""

    exit_code = 5


class ObjectTooLargeError(StoreError):
    """The object has more bytes than the caller allows; none of them were kept."""
