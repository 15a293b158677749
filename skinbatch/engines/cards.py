"""Divide one GPU among several workers, and check that what they use fits on it."""

from __future__ import annotations

from skinbatch.errors import UsageError

# Ray counts GPUs in ten-thousandths, and rounds to the nearest one.
_RAY_STEPS = 10_000
# Most of a card, in Ray's steps, that a share may leave to nobody: 0.33 leaves 0.01.
_MOST_UNUSED = 500
# Smallest share, in Ray's steps. More than a hundred workers on a card are taken for a mistake.
_LEAST_SHARE = 100
# Bytes of a process on a card that torch does not count: CUDA's context and its libraries. This is
# a rule of thumb that was not measured here.
CONTEXT_MEMORY = 512 << 20
_GB = 1 << 30


def workers_a_card(share: float) -> int:
    """Return how many workers with this share Ray places on one card.

    >>> [workers_a_card(share) for share in (1.0, 0.5, 0.33, 0.25, 0.1)]
    [1, 2, 3, 4, 10]
    """
    return _RAY_STEPS // round(share * _RAY_STEPS)


def share_of(workers: int) -> float:
    """Return the share with which so many workers fit on a card, rounded down as Ray needs it.

    >>> share_of(4), share_of(3)
    (0.25, 0.3333)
    """
    return (_RAY_STEPS // workers) / _RAY_STEPS


def check_share(gpus: float) -> None:
    """Check that Ray can give each worker so many GPUs.

    Raises:
        UsageError: If it is above 1 and not whole, below 0.01, or leaves more than a twentieth of
            each card to nobody.
    """
    if gpus == int(gpus):
        return
    if gpus > 1:
        raise UsageError(
            f"gpus_per_worker = {gpus:g}: above 1, Ray gives only whole GPUs; set {int(gpus)} or {int(gpus) + 1}, "
            "or a fraction such as 0.5 to share one"
        )
    if gpus * _RAY_STEPS < _LEAST_SHARE:
        raise UsageError(
            f"gpus_per_worker = {gpus:g} is below 0.01; set a larger fraction, or 0 for none"
        )

    workers = workers_a_card(gpus)
    unused = _RAY_STEPS - workers * round(gpus * _RAY_STEPS)
    if unused > _MOST_UNUSED:
        raise UsageError(
            f"gpus_per_worker = {gpus:g} leaves {unused / _RAY_STEPS:g} of each GPU unused; set "
            f"{share_of(workers):g} ({_count(workers)} a GPU) or {share_of(workers + 1):g} ({_count(workers + 1)})"
        )


def over_share(reserved: int, card: int, share: float) -> str | None:
    """Return why a worker does not fit into its share of a card, and the way out; None if it fits.

    Args:
        reserved: most bytes that torch has reserved in the worker's process.
        card: bytes of memory of the card.
        share: GPUs that the worker was given. With 1 or more it always fits, because no other worker
            uses the card.
    """
    if share >= 1 or not card:
        return None
    used = reserved + CONTEXT_MEMORY
    if used <= share * card:
        return None

    fitting = min(card // used, workers_a_card(share) - 1)
    text = (
        f"gpus_per_worker = {share:g}: a worker uses {used / _GB:.1f} GB of GPU memory, and its share of the card "
        f"({card / _GB:.1f} GB) is {share * card / _GB:.1f} GB; "
    )
    if fitting < 2:
        return text + "set 1: only one worker fits on a GPU; or lower batch_size"
    return text + f"set {share_of(fitting):g} ({_count(fitting)} a GPU), or lower batch_size"


def _count(workers: int) -> str:
    return f"{workers} worker{'' if workers == 1 else 's'}"
