"""Test the shares of a GPU that workers may have, and the check that what they use fits."""

import pytest
from pydantic import ValidationError

from skinbatch.config import EngineSettings
from skinbatch.engines.cards import CONTEXT_MEMORY, check_share, over_share, share_of
from skinbatch.engines.shares import Node, shares
from skinbatch.errors import UsageError

GB = 1 << 30
CARD = 16 * GB


@pytest.mark.parametrize("gpus", [0, 1, 2.0, 8, 0.5, 0.33, 0.3333, 0.25, 0.2, 0.1, 0.01])
def test_shares_that_fill_a_card_are_accepted(gpus: float) -> None:
    check_share(gpus)


@pytest.mark.parametrize("workers", range(1, 21))
def test_the_share_for_so_many_workers_is_one_that_ray_can_place(workers: int) -> None:
    check_share(share_of(workers))
    assert shares(EngineSettings(gpus_per_worker=share_of(workers)), [Node(64, 1)])[0] == workers


@pytest.mark.parametrize(
    ("gpus", "reason"),
    [
        (0.3, r"leaves 0.1 of each GPU unused; set 0.3333 \(3 workers a GPU\) or 0.25 \(4 workers"),
        (0.6, r"leaves 0.4 of each GPU unused; set 1 \(1 worker a GPU\) or 0.5 \(2 workers"),
        (1 / 6, r"or 0.1666 \(6 workers\)"),
        (1.5, "only whole GPUs; set 1 or 2, or a fraction"),
        (0.001, "below 0.01"),
    ],
)
def test_other_shares_are_refused_with_the_nearest_ones(gpus: float, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        shares(EngineSettings(gpus_per_worker=gpus), [Node(16, 4)])


def test_no_infinite_share_is_taken() -> None:
    with pytest.raises(ValidationError, match="finite"):
        EngineSettings(gpus_per_worker=float("inf"))


def test_no_share_is_taken_from_two_cards() -> None:
    assert shares(EngineSettings(gpus_per_worker=0.48), [Node(64, 25)])[0] == 50


@pytest.mark.parametrize(
    ("reserved", "share"),
    [(4 * GB - CONTEXT_MEMORY, 0.25), (15 * GB, 1.0), (15 * GB, 2.0), (0, 0.01 + 1 / 32)],
)
def test_a_worker_within_its_share_fits(reserved: int, share: float) -> None:
    assert over_share(reserved, CARD, share) is None


def test_a_worker_without_a_card_fits() -> None:
    assert over_share(0, 0, 0.25) is None


@pytest.mark.parametrize(
    ("reserved", "share", "way_out"),
    [
        (4 * GB - CONTEXT_MEMORY + 1, 0.25, "set 0.3333 (3 workers a GPU)"),
        (7 * GB, 0.25, "set 0.5 (2 workers a GPU)"),
        (9 * GB, 0.5, "set 1: only one worker fits on a GPU"),
        (9 * GB, 0.25, "set 1: only one worker fits on a GPU"),
    ],
)
def test_a_worker_over_its_share_is_told_the_largest_number_that_fits(
    reserved: int, share: float, way_out: str
) -> None:
    reason = over_share(reserved, CARD, share)
    assert reason is not None
    assert way_out in reason
    assert f"uses {(reserved + CONTEXT_MEMORY) / GB:.1f} GB" in reason
    assert f"the card (16.0 GB) is {16 * share:.1f} GB" in reason
