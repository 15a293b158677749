"""Test photos that kill, hang or overfill their worker, or make models raise: each gets its status,
and the others are scored."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinbatch.models.fake import KILLS, RAISES
from tests.faces import face, png, rows, tar_bytes, write_tree
from tests.faults.bench import differences
from tests.faults.fault import HANGS_DECODER, KILLS_DECODER, Fault
from tests.faults.trial import Trial

# Bytes of address space that a worker may add. The large photo needs 860 MB; each of the worker's
# threads may reserve 64 MB for small allocations.
ALLOWANCE = 600 << 20


def large(side: int = 9000) -> bytes:
    """Return a photo of 81 million pixels, within the limit, in a small file."""
    out = io.BytesIO()
    Image.fromarray(np.full((side, side), 200, np.uint8)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def scored(
    trial: Trial, files: dict[str, bytes], pack: str, code: int = 0, **how: int
) -> dict[str, dict[str, object]]:
    """Return the rows of an archive of these files, after `verify` has found all of them."""
    tree = write_tree(trial.out.parent / "photos", files)
    driver = replace(trial, source=tree, pack=pack).start(["--max-failures", "0.5"], **how)
    assert driver.end(240.0) == code, driver.said
    assert differences(trial.out) == []
    return rows(trial.out)


def statuses(found: dict[str, dict[str, object]]) -> dict[str, object]:
    """Return the statuses that are not ok."""
    return {image_id: row["status"] for image_id, row in found.items() if row["status"] != "ok"}


def test_photos_that_kill_or_upset_cost_nobody_else_anything(
    trial: Trial, mortal_pack: str
) -> None:
    quiet = {f"{n:02}.png": png(face(n % 5, n % 3, n)) for n in range(24)}
    poison = {
        "decoder.png": png(face()) + KILLS_DECODER,
        "model.png": png(face(corner=KILLS)),
        "raises.png": png(face(corner=RAISES)),
        "s.tar": tar_bytes(
            {"0.png": png(face(1)), "1.png": png(face(2)) + KILLS_DECODER, "2.png": png(face(3))}
        ),
    }
    found = scored(trial, quiet | poison, mortal_pack)
    assert statuses(found) == {
        "decoder.png": "crashed",
        "model.png": "crashed",
        "raises.png": "model_error",
        "s.tar/1.png": "crashed",
    }
    assert "SIGSEGV" in str(found["decoder.png"]["error"]) and "SIGABRT" in str(
        found["model.png"]["error"]
    )
    assert "RuntimeError" in str(found["raises.png"]["error"])
    assert len(found) == 30


def test_a_photo_that_needs_more_memory_than_there_is_is_too_large_and_its_neighbours_are_scored(
    trial: Trial, fake_pack: str
) -> None:
    files = {f"{n:02}.png": png(face(n % 5, n % 3, n)) for n in range(24)} | {"large.png": large()}
    found = scored(trial, files, fake_pack, memory=ALLOWANCE)
    assert statuses(found) == {"large.png": "too_large"}
    assert "does not fit in memory" in str(found["large.png"]["error"])
    assert "." in str(found["large.png"]["unit_id"])  # it was found among its neighbours
    assert len(found) == 25


@pytest.mark.slow
def test_a_photo_that_hangs_its_decoder_is_a_timeout_and_its_neighbours_are_scored(
    trial: Trial, fake_pack: str
) -> None:
    files = {f"{n:02}.png": png(face(n % 5, n % 3, n)) for n in range(24)}
    found = scored(trial, files | {"hangs.png": png(face()) + HANGS_DECODER}, fake_pack)
    assert statuses(found) == {"hangs.png": "timeout"}
    assert len(found) == 25


def test_linux_kills_a_worker_before_its_driver_where_memory_runs_out(trial: Trial) -> None:
    trial.plan(Fault("worker", "model", "before", 1, "stop"))
    driver = trial.start()
    worker = trial.hit()
    scores = [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (worker, driver.pid)]
    assert scores[0] == 1000 > scores[1]
    trial.go_on(worker)
    assert driver.end() == 0
    trial.check()


def test_a_broken_pack_stops_the_run_early_and_says_what_is_wrong(
    trial: Trial, mortal_pack: str
) -> None:
    broken, well = png(face(corner=RAISES)[:32, :32]), png(face()[:32, :32])
    files = {f"{n:04}.png": broken if n % 8 else well for n in range(1600)} | {
        "cut.png": broken[:90]
    }
    tree = write_tree(trial.out.parent / "photos", files)
    driver = replace(trial, source=tree, pack=mortal_pack).start()
    assert driver.end(120.0) == 6, driver.said
    said = driver.said
    assert (
        "model_error: segmenter: RuntimeError: the photo has the colour that this fake raises on"
        in said
    )
    found = Counter(row["status"] for row in rows(trial.out).values())
    assert 1000 <= found.total() < 1400 and set(found) <= {"ok", "model_error", "truncated"}
