"""Prove that every listed photo has exactly one row and that no file has changed since."""

from __future__ import annotations

from contextlib import suppress

from skinbatch.errors import NotFoundError, TableError
from skinbatch.runs import destination, plan, snapshot, strays
from skinbatch.runs.graded import check_gradings
from skinbatch.runs.holdings import changed_merged, left_behind
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.plan import Plan
from skinbatch.runs.row_check import check_rows
from skinbatch.runs.snapshot import Snapshot
from skinbatch.runs.stub import Stub
from skinbatch.runs.taken import check_taken
from skinbatch.runs.verify_report import VerifyReport
from skinbatch.storage.store import Store


def verify(store: Store, scoring: str | None = None) -> VerifyReport:
    """Compare plan, snapshot, receipts and files of one scoring.

    Every receipt and every data file is read once, merged files twice. Files with results that were
    taken from an earlier scoring are read once more, beside the earlier files.
    """
    destination.require_destination(store)
    damaged = destination.damaged_scorings(store)
    fingerprint = destination.choose_scoring(store, scoring, damaged)
    ledger = Ledger.load(store, fingerprint)
    report = VerifyReport(fingerprint)
    report.differences += [*damaged.values(), *strays.foreign(store, fingerprint)]
    report.differences += [
        f"{store.uri_of(key)}: cannot be read as a receipt, a fold, a snapshot or a merged file"
        for key in sorted(ledger.unreadable)
    ]

    current = _current_snapshot(ledger, report)
    newest = _newest_plan(ledger, current, report)
    if newest is None:
        return report
    if current is None or current.plan != newest.name:
        _report_units_left(ledger, newest, report)

    report.differences += [
        *_broken_receipts(ledger),
        *strays.changed_receipts(ledger),
        *changed_merged(ledger),
        *check_gradings(store, fingerprint, current),
    ]
    if current is None:
        return report

    report.snapshot, report.plan = current.name, current.plan
    report.differences += [*_unnamed(ledger, current), *check_taken(ledger, current)]
    checked = newest if current.plan == newest.name else _plan_of(ledger, current, report)
    if checked is None:
        return report

    try:
        check_rows(ledger, checked, current, report)
    except (NotFoundError, TableError) as e:  # a file of the plan: the expected photos are unknown
        report.differences.append(f"plan {checked.name}: {e}")
    if current.rows == 0:
        report.differences.append(
            _nothing(store, fingerprint, plan.names(store, fingerprint), checked)
        )
    return report


def _current_snapshot(ledger: Ledger, report: VerifyReport) -> Snapshot | None:
    """Return the newest snapshot that counts, and report a newer one that does not."""
    names = snapshot.names(ledger.store, ledger.fingerprint)
    current = snapshot.newest_that_counts(ledger)
    if names and (current is None or current.name != names[0]):
        report.differences.append(
            f"the newest snapshot {names[0]} does not count: it is damaged, or a receipt or file that it names is gone"
        )
    return current


def _newest_plan(ledger: Ledger, current: Snapshot | None, report: VerifyReport) -> Plan | None:
    """Return the newest plan, or the snapshot's if the two are equal.

    Reports it if there is none that can be read.
    """
    store, fingerprint = ledger.store, ledger.fingerprint
    plans = plan.names(store, fingerprint)
    if not plans:
        report.differences.append("there is no plan: nothing has been listed here")
        return None
    try:
        newest = plan.read(store, fingerprint, plans[0])
    except (NotFoundError, TableError) as e:
        report.differences.append(str(e))
        return None

    if current is not None and current.plan != newest.name:
        with suppress(NotFoundError, TableError):  # two drivers may have written equal plans
            named = plan.read(store, fingerprint, current.plan)
            return named if named.units.same_inputs(newest.units) else newest
    return newest


def _report_units_left(ledger: Ledger, newest: Plan, report: VerifyReport) -> None:
    left = newest.units.where(ledger.proof(*inputs) is None for inputs in newest.units.inputs())
    report.units_left, photos = len(left), left.photos
    report.differences.append(
        f"not finished: {len(left)} of {len(newest.units)} units of plan {newest.name} are left"
        + (f", {photos} photos" if photos else "")
        + "; run the same `skinbatch score` again to finish"
    )


def _plan_of(ledger: Ledger, current: Snapshot, report: VerifyReport) -> Plan | None:
    """Return the plan that the snapshot names, or report that it cannot be read."""
    try:
        return plan.read(ledger.store, ledger.fingerprint, current.plan)
    except NotFoundError:
        report.differences.append(
            f"snapshot {current.name} names plan {current.plan}, which does not exist any more"
        )
    except TableError as e:
        report.differences.append(str(e))
    return None


def _nothing(store: Store, fingerprint: str, plans: list[str], checked: Plan) -> str:
    """Return why a scoring without rows proves nothing, and what earlier plans listed."""
    nothing = "there is nothing to prove: not one photo has a row"
    for name in plans:
        with suppress(NotFoundError, TableError):
            listed = plan.read(store, fingerprint, name)
            if listed.units.photos:
                loose = [unit for unit in listed.units if unit.shard is None and unit.count]
                first = next(iter(plan.work_units(store, fingerprint, listed, loose[:1])), None)
                example = (
                    f", such as {first.images[0].image_id},"
                    if first is not None and first.images
                    else ""
                )
                return (
                    f"{nothing}; plan {name} listed {listed.units.photos} photos{example} and none of them is left: "
                    "compare the listed names with the source (encoding, upper and lower case, prefix, bucket)"
                )
    return f"{nothing}; the {len(checked.units)} listed shards hold no photos"


def _broken_receipts(ledger: Ledger) -> list[str]:
    """Return a sentence for each receipt whose files are gone."""
    sentences = []
    for stub in ledger:
        if stub.listed and stub.read and not stub.complete:
            gone = ", ".join(stub.files(ledger.fingerprint, stub.needed & ~stub.present))
            sentences.append(f"{_uri(ledger, stub)}: a receipt whose files are gone: {gone}")
    return sentences


def _unnamed(ledger: Ledger, current: Snapshot) -> list[str]:
    """Return a sentence for each data file or receipt that the snapshot does not name."""
    named = current.receipts
    foreign = sorted(_uri(ledger, stub) for stub in ledger.receipts_besides(named) if stub.complete)
    return [
        *(
            f"{ledger.store.uri_of(key)}: a data file that the snapshot does not name"
            for key in sorted(set(ledger.files_besides(named)))
        ),
        *(f"{uri}: a receipt that the snapshot does not name" for uri in foreign),
        *(f"{ledger.store.uri_of(key)}: {why}" for key, why in left_behind(ledger, named)),
    ]


def _uri(ledger: Ledger, stub: Stub) -> str:
    return ledger.store.uri_of(stub.key(ledger.fingerprint))
