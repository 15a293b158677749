"""Fit probabilities to the truth, and measure how far apart the two are.

Guo et al.: On Calibration of Modern Neural Networks (2017). Logits are scaled by one number, the
inverse of the temperature, and shifted by one number for each class: training shows rare classes
as often as common ones, and the shift reverses that.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, softmax

from skinbatch.metrics.bootstrap import Estimate, Resampling, Statistic, bootstrap

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Bins of equal width over 0 to 1, as in the paper's figures.
BINS = 10
FOLDS = 5
# Name of the reliability of each photo's most probable class, beside those of the classes.
TOP = "top class"
# Strength with which the scale is held to 1 and the shifts to 0: that of this many photos.
_PRIOR = 1.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Turn logits into probabilities.

    scale: above 0. shift: (C,). softmax: all classes together, otherwise each by itself.
    """

    scale: float
    shift: Floats
    softmax: bool = False

    def probabilities(self, logits: Floats) -> Floats:
        """Return (N, C) probabilities of (N, C) logits."""
        moved = logits * self.scale + self.shift
        return np.asarray(softmax(moved, axis=1) if self.softmax else expit(moved), np.float64)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Compare probabilities with the share of photos that have the class, in bins.

    photos, mean, share: (BINS,) photos of a bin, their mean probability, and the share of them that
    has the class; NaN in empty bins. error: the expected calibration error, the mean of
    |mean - share| over photos.
    """

    photos: NDArray[np.int64]
    mean: Floats
    share: Floats
    error: Estimate


def fit_calibration(logits: Floats, truth: Bools, *, softmax: bool = False) -> Calibration:
    """Return the scale and the shifts that make the truth most likely.

    Args:
        logits: (N, C).
        truth: (N, C), whether a photo has a class; with `softmax` each has one.
        softmax: Whether probabilities are made from all classes together.

    Raises:
        ValueError: There is no photo to fit to.

    Example:
        >>> logits = np.array([[4.0], [4.0], [-4.0], [-4.0]])
        >>> truth = np.array([[True], [False], [False], [True]])
        >>> bool(fit_calibration(logits, truth).scale < 0.5)
        True
    """
    if not len(logits):
        raise ValueError("a calibration is fitted to one photo at least")
    fit = minimize(
        _unlikeliness, np.zeros(1 + logits.shape[1]), (logits, truth, softmax), method="L-BFGS-B"
    )
    return Calibration(float(np.exp(fit.x[0])), np.asarray(fit.x[1:], np.float64), softmax)


def _unlikeliness(values: Floats, logits: Floats, truth: Bools, together: bool) -> float:
    """Return the negative log-likelihood of the truth.

    values: log of the scale, then the shifts.
    """
    moved = logits * np.exp(values[0]) + values[1:]
    if together:
        highest = moved.max(axis=1, keepdims=True)
        spread = highest[:, 0] + np.log(np.exp(moved - highest).sum(axis=1))
        likely = moved[truth].sum() - spread.sum()
    else:
        likely = np.where(truth, log_expit(moved), log_expit(-moved)).sum()
    return float(_PRIOR * (values**2).sum() / 2 - likely)


def held_out_probabilities(
    logits: Floats, truth: Bools, groups: Sequence[Hashable], seed: int, *, softmax: bool = False
) -> Floats:
    """Return (N, C) probabilities from calibrations that were fitted without the photo.

    Photos are divided into FOLDS parts, groups as a whole. With fewer than two groups there is
    nothing to fit to, and the probabilities are those of the bare logits.

    Args:
        logits, truth: As in fit_calibration.
        groups: The group of each photo, such as a patient.
        seed: Decides the parts.
        softmax: As in fit_calibration.
    """
    names = list(dict.fromkeys(groups))
    bare = Calibration(1.0, np.zeros(logits.shape[1]), softmax)
    if len(names) < 2:
        return bare.probabilities(logits)

    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[n]: place % FOLDS for place, n in enumerate(order)}
    folds = np.array([fold[group] for group in groups])
    probabilities = np.empty_like(logits, np.float64)
    for number in range(FOLDS):
        mine = folds == number
        if mine.any():
            probabilities[mine] = fit_calibration(
                logits[~mine], truth[~mine], softmax=softmax
            ).probabilities(logits[mine])
    return probabilities


def reliabilities(
    probability: Floats,
    truth: Bools,
    classes: Sequence[str],
    how: Resampling,
    *,
    groups: NDArray[np.int64] | None = None,
) -> dict[str, Reliability]:
    """Return the reliability of every class, and under TOP that of each photo's top class.

    Args:
        probability, truth: (N, C).
        classes: Their names.
        how: How intervals are drawn.
        groups: (N,) group of each photo, drawn as a whole.
    """
    top = probability.argmax(axis=1)
    rows = np.arange(len(top))
    by_class = {TOP: reliability(probability[rows, top], truth[rows, top], how, groups=groups)}
    for n, name in enumerate(classes):
        by_class[name] = reliability(probability[:, n], truth[:, n], how, groups=groups)
    return by_class


def reliability(
    probability: Floats, true: Bools, how: Resampling, *, groups: NDArray[np.int64] | None = None
) -> Reliability:
    """Return the bins and the expected calibration error of one class, or of the top class.

    Args:
        probability, true: (N,).
        how: How intervals are drawn.
        groups: (N,) group of each photo, drawn as a whole.

    Example:
        >>> probability, true = np.array([0.9, 0.9, 0.1]), np.array([True, True, False])
        >>> round(reliability(probability, true, Resampling(0)).error.value, 2)
        0.1
    """
    bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    parts = np.zeros((len(probability), BINS, 3))
    rows = np.arange(len(probability))
    parts[rows, bins] = np.stack([np.ones(len(probability)), probability, true], axis=1)
    photos, claimed, seen = parts.sum(axis=0).T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, share = claimed / photos, seen / photos
    (error,) = bootstrap(parts.reshape(len(probability), BINS * 3), _ERROR, how, groups=groups)
    return Reliability(photos.astype(np.int64), mean, share, error)


def _error(sums: Floats) -> Floats:
    """Return the (B, 1) expected calibration errors; NaN without a photo."""
    photos, claimed, seen = np.moveaxis(sums.reshape(len(sums), BINS, 3), 2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.abs(claimed - seen).sum(axis=1) / photos.sum(axis=1))[:, None]


_ERROR: Statistic = _error
