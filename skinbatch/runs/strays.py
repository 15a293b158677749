"""Find objects in a destination that skinbatch did not write there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from skinbatch.runs import destination, layout
from skinbatch.runs.ledger import Ledger
from skinbatch.storage.store import Store

_NAMED = 20
_COPIES = re.compile(r"\d+\.[0-9a-f]{12}\.parquet")
_PLANNED = re.compile(r"\d+\.[0-9a-f]{12}/(?:units|members-\d{5,})\.parquet")


def foreign(store: Store, fingerprint: str) -> list[str]:
    """Return sentences about foreign files, one for each folder.

    Looked at are the folders of all scorings, and the plans, folds and snapshots of one.
    """
    folders = {f"scoring={name}" for name in destination.scoring_names(store)}
    sentences = []
    for kind in layout.DATA_KINDS:
        keys = (key for key in store.keys(f"{kind}/") if _folder(key) not in folders)
        sentences += _sentence(store, f"{kind}/", keys, "of no scoring of this destination")
    for prefix, ours in (
        (layout.plans_prefix(fingerprint), _PLANNED),
        (layout.folds_prefix(fingerprint), _COPIES),
        (layout.snapshots_prefix(fingerprint), _COPIES),
    ):
        keys = (key for key in store.keys(prefix) if not ours.fullmatch(key[len(prefix) :]))
        sentences += _sentence(store, prefix, keys, "that skinbatch did not write")
    return sentences


def changed_receipts(ledger: Ledger) -> Iterator[str]:
    """Yield a sentence for each receipt that differs from its copy in a snapshot or fold.

    Each receipt is read once.
    """
    for stub in ledger.changed():
        yield (
            f"{ledger.store.uri_of(stub.key(ledger.fingerprint))}: not what was written: it differs from its copy in a "
            "snapshot or fold; delete it, and run the same `skinbatch score` again, which scores its unit again"
        )


def _folder(key: str) -> str:
    """Return `scoring=x` of `images/scoring=x/y`; empty for keys above such a folder."""
    parts = key.split("/")
    return parts[1] if len(parts) > 2 else ""


def _sentence(store: Store, prefix: str, keys: Iterable[str], what: str) -> list[str]:
    names = sorted(key[len(prefix) :] for key in keys)
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [
        f"{store.uri_of(prefix)}: files {what}: {', '.join(names[:_NAMED])}{more}; move them elsewhere"
    ]
