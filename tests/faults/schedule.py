"""Draw a schedule of faults from a seed and score the archive under it.

`python -m tests.faults.schedule --seed N`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.bench import differences, same_rows, write_archive
from tests.faults.fault import Deed, Fault, Faults, Role, state_of
from tests.faults.trial import Trial
from tests.faults.zygote import Driver, Zygote

POINTS: dict[Role, tuple[str, ...]] = {
    "driver": (
        "keys receipts",
        "keys images",
        "put dest",
        "put scorings",
        "put claim",
        "put plans",
        "put attempts",
        "put folds",
        "put runs",
        "put snapshots",
        "list snapshots",
        "delete boxes",
        "delete images",
        "delete receipts",
        "delete folds",
        "delete attempts",
        "delete claim",
    ),
    "worker": (
        "get photo",
        "stream photo",
        "decode",
        "model",
        "put images",
        "put boxes",
        "put receipts",
    ),
}
# How often each point is passed, at least, in an undisturbed run.
QUIET: dict[str, int] = {
    "get photo": 40,
    "stream photo": 1,
    "decode": 45,
    "model": 25,
    **dict.fromkeys(("put images", "put boxes", "put receipts"), 6),
    **dict.fromkeys(("keys receipts", "keys images", "list snapshots", "put claim", "put runs"), 1),
    **dict.fromkeys(("put dest", "put scorings", "put plans", "put snapshots", "delete claim"), 1),
}
DEEDS: dict[Role, tuple[Deed, ...]] = {
    "driver": ("kill", "kill", "kill", "int", "term", "stop", "full"),
    "worker": ("kill", "kill", "stop", "full"),
}
MOST_RUNS = 12
# How a disturbed run may end: done, store failed, claim lost, interrupted, killed. SIGINT and
# SIGTERM themselves end no run, because drivers are forked from a Python that has already started.
OUTCOMES = {0, 4, 7, 130, -signal.SIGKILL}


def draw(seed: int) -> list[Fault]:
    """Return one to five faults, the first of which happens unless another comes before it.

    At most two of them hit workers, because a photo that is there at three deaths counts as their
    cause.
    """
    rng = random.Random(seed)
    faults: list[Fault] = []
    for number in range(rng.randint(1, 5)):
        role: Role = (
            "driver"
            if rng.random() < 0.55 or sum(f.role == "worker" for f in faults) == 2
            else "worker"
        )
        point = rng.choice(POINTS[role] if number else [p for p in POINTS[role] if p in QUIET])
        deed = rng.choice(DEEDS[role])
        if deed == "full" and not point.startswith("put"):
            deed = "kill"
        nth = rng.randint(1, max(3, QUIET.get(point, 0)) if number else QUIET[point])
        faults.append(Fault(role, point, rng.choice(("before", "after")), nth, deed))
    return faults


@dataclass(slots=True)
class Played:
    """Hold the outcome of a schedule. ends: exit codes of its runs. happened: faults that happened."""

    seed: int
    planned: list[Fault]
    happened: list[Fault] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)


def play(trial: Trial, seed: int) -> Played:
    """Run until one run ends well.

    Then the stopped ones continue, and a last run repairs what they have written.
    """
    rng = random.Random(f"how {seed}")
    played = Played(seed, draw(seed))
    trial.plan(*played.planned)
    stopped: list[Driver] = []
    lose = rng.random() < 0.5
    while len(played.ends) < MOST_RUNS and (not played.ends or played.ends[-1] != 0):
        driver = trial.start(lose=lose, watch_s=0.5)
        code = driver.wait(timeout_s=120.0)
        if code is None:
            stopped.append(driver)
            # It continues before another driver takes over, or while that one works.
            if rng.random() < 0.5:
                trial.go_on(driver.pid)
                if rng.random() < 0.5:
                    played.ends.append(_end_of(trial, stopped.pop()))
            continue
        played.ends.append(code)
        if rng.random() < 0.3:
            driver.sweep()  # else its worker, if it had one, ends by itself or writes on
    if played.ends[-1] == 0 and not stopped and not same_rows(trial.out, trial.like):
        # Before anything is repaired.
        played.wrong.append("a run ended with 0 and had not all rows")
    for pid in [*(d.pid for d in stopped), *trial.faults.running("worker")]:
        trial.go_on(pid)
    played.ends += [_end_of(trial, driver) for driver in stopped]
    for pid in trial.faults.running("worker"):
        trial.end_of(pid)
    played.happened = [fault for fault, _ in trial.faults.happened]
    trial.faults.plan([])
    played.ends.append(trial.start().end(120.0))
    _judge(trial, played)
    return played


def _end_of(trial: Trial, driver: Driver) -> int:
    """Return the exit code of a driver that other faults may stop again."""
    while (code := driver.wait(120.0)) is None:
        assert state_of(driver.pid) == "T", f"the driver does not end; it said: {driver.said}"
        trial.go_on(driver.pid)
    return code


def _judge(trial: Trial, played: Played) -> None:
    import skinbatch

    found = Counter(skinbatch.open(trial.out).images(["image_id"]).column("image_id").to_pylist())
    wanted = Counter(skinbatch.open(trial.like).images(["image_id"]).column("image_id").to_pylist())
    played.lost = (wanted - found).total()
    played.doubled = (found - wanted).total()
    played.wrong += ["nothing happened"] * (not played.happened)
    played.wrong += [f"exit codes {played.ends}"] * (
        played.ends[-1] != 0 or not OUTCOMES.issuperset(played.ends)
    )
    played.wrong += differences(trial.out)
    if not played.lost and not played.doubled and not same_rows(trial.out, trial.like):
        played.wrong.append("rows differ from the undisturbed run's")


def main() -> None:
    """Play seeds, print the outcomes, and return 1 at the first that fails."""
    import skinbatch
    from skinbatch.models.fake import write_fake_pack

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--count", type=int, default=1)
    wanted = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    zygote = Zygote()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source, pack = write_archive(root / "photos"), str(write_fake_pack(root / "pack"))
        skinbatch.score(source, root / "like", pack=pack, engine="local")
        runs, faults = 0, Counter[str]()
        for seed in range(wanted.seed, wanted.seed + wanted.count):
            place = root / str(seed)
            trial = Trial(
                source, place / "out", root / "like", pack, zygote, Faults(place / "faults")
            )
            played = play(trial, seed)
            print(
                f"seed {seed}: {played.ends}, {len(played.happened)} of {len(played.planned)} faults",
                flush=True,
            )
            if played.lost or played.doubled or played.wrong:
                print(played)
                raise SystemExit(1)
            runs += len(played.ends)
            faults.update(f"{fault.role} {fault.deed}" for fault in played.happened)
        told = ", ".join(f"{n} x {what}" for what, n in faults.most_common())
        print(
            f"{wanted.count} schedules, {runs} runs, {faults.total()} faults ({told}); 0 rows lost, 0 doubled"
        )
    zygote.close()


if __name__ == "__main__":
    main()
