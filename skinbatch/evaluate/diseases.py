"""Compare classes of whole photos with those that people gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skinbatch.errors import UsageError, needs_extra
from skinbatch.evaluate import papers
from skinbatch.evaluate.request import EvaluationRequest, Judged
from skinbatch.evaluate.scoring_tables import DISEASE, ScoringTables, spelled
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.calibration import reliabilities
from skinbatch.metrics.classification import classification, roc

with needs_extra("train"):
    from sklearn.metrics import confusion_matrix

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

NONE = "none"
# Probability from which a class counts as chosen if the tables hold no choice of their own.
CHOSEN_FROM = 0.5


class Diseases:
    """Judge one classifier on the photos whose classes people gave.

    A photo of a class that the classifier does not have counts as a photo of none of its classes.

    The classifier never looked at a photo without a face. Its probabilities count as 0 there: that
    is the answer of the whole pipeline, not of the classifier alone. `with_face` holds
    the same numbers without such photos.

    A class counts as chosen if it is `top_class`, provided that no photo has two classes and this
    classifier fills that column. Otherwise every class with a probability of at least 0.5 is
    chosen.

    places: (n,) indices of the photos among those that are judged.
    """

    def __init__(
        self,
        judged: Judged,
        scored: ScoringTables,
        request: EvaluationRequest,
        head: str,
        columns: Mapping[str, str],
    ) -> None:
        self.head = head
        self.classes = tuple(sorted(columns, key=_place))
        self.apart = tuple(name for name in map(spelled, request.apart) if name in self.classes)
        self.places = np.array(
            [n for n, photo in enumerate(judged.photos) if photo.classes is not None], np.int64
        )
        rows = judged.rows[self.places]
        self.unknown: Counter[str] = Counter()
        number = {name: k for k, name in enumerate(self.classes)}
        self.truth = np.zeros((len(rows), len(self.classes)), np.bool_)
        for n, place in enumerate(self.places):
            for name in judged.photos[place].classes or ():
                meaning = request.renamed(name)
                if meaning in number:
                    self.truth[n, number[meaning]] = True
                elif meaning is not None:
                    self.unknown[name] += 1
        each = [scored.numbers(columns[name], rows) for name in self.classes]
        probabilities = np.stack(each, axis=1).reshape(len(rows), len(self.classes))
        self._seen: Bools = np.asarray(np.isfinite(probabilities).all(axis=1), np.bool_)
        self.probability = np.where(np.isfinite(probabilities), probabilities, 0)
        self.exclusive = bool((self.truth.sum(axis=1) <= 1).all())
        self.by_top = self.exclusive and head == DISEASE
        if self.by_top:
            tops = [spelled(top) if top else "" for top in scored.texts("top_class", rows)]
            self._chosen = np.array(
                [[top == name for name in self.classes] for top in tops], np.bool_
            )
            self._chosen = self._chosen.reshape(self.truth.shape)
        else:
            self._chosen = self.probability >= CHOSEN_FROM
        self._groups = judged.groups_of(self.places)

    @property
    def concerned(self) -> bool:
        """Return whether any photo shows one of the classes."""
        return bool(self.truth.any())

    def measure(self, keep: Bools, how: Resampling) -> dict[str, Any]:
        """Return the numbers of some photos.

        keep: (n,) bool. If some photos have no face, `with_face` holds the numbers of the others.
        """
        truth, chosen = self.truth[keep], self._chosen[keep]
        faceless = keep & ~self._seen
        numbers: dict[str, Any] = {
            "head": self.head,
            "without_face": int(faceless.sum()),
            "without_face_of_class": self._of_class(faceless),
            "without_face_of_none": self._of_none(faceless),
            "chosen_by": "top_class" if self.by_top else f"probability >= {CHOSEN_FROM}",
            "apart": list(self.apart),
            **self._numbers(keep, how),
        }
        if faceless.any() and not np.array_equal(faceless, keep):
            numbers["with_face"] = self._numbers(keep & self._seen, how)
        if (keep & self._seen).any():
            numbers["calibration"] = self._calibration(keep & self._seen, how)
            numbers["named"] = self._named(keep & self._seen)
        if self.by_top:
            names = (*self.classes, NONE)
            cells = (
                confusion_matrix(_single(truth), _single(chosen), labels=range(len(names)))
                if len(truth)
                else None
            )
            numbers |= {
                "confusion": None if cells is None else cells.tolist(),
                "confusion_classes": list(names),
            }
        return numbers

    def _numbers(self, keep: Bools, how: Resampling) -> dict[str, Any]:
        groups = None if self._groups is None else self._groups[keep]
        return {
            "photos": int(keep.sum()),
            "of_none": self._of_none(keep),
            "of_class": self._of_class(keep),
            "classes": classification(
                self.truth[keep],
                self.probability[keep],
                self._chosen[keep],
                self.classes,
                how,
                apart=self.apart,
                groups=groups,
            ),
        }

    def _calibration(self, keep: Bools, how: Resampling) -> dict[str, Any]:
        """Return how far probabilities agree with the truth on the photos with a face."""
        groups = None if self._groups is None else self._groups[keep]
        curves = reliabilities(
            self.probability[keep], self.truth[keep], self.classes, how, groups=groups
        )
        return {
            name: {
                "error": curve.error,
                "photos": curve.photos.tolist(),
                "mean_probability": curve.mean.tolist(),
                "share_true": curve.share.tolist(),
            }
            for name, curve in curves.items()
        }

    def _named(self, keep: Bools) -> dict[str, int]:
        """Return how many photos have a class chosen, and of how many it is a right one."""
        chosen, truth = self._chosen[keep], self.truth[keep]
        named, none = chosen.any(axis=1), ~truth.any(axis=1)
        return {
            "photos": int(named.sum()),
            "right": int((chosen & truth).any(axis=1).sum()),
            "of_none": int(none.sum()),
            "of_none_named": int((named & none).sum()),
        }

    def _of_class(self, keep: Bools) -> dict[str, int]:
        return {name: int(self.truth[keep, k].sum()) for k, name in enumerate(self.classes)}

    def _of_none(self, keep: Bools) -> int:
        return int((~self.truth[keep].any(axis=1)).sum())

    def curves(self, *, with_face: bool = False) -> dict[str, tuple[Floats, Floats]]:
        """Return, for each class, the rates of false and true positives.

        They are of all photos, or of those with a face.

        The classes come in the order of paper 000's figure.
        """
        keep = self._seen if with_face else np.ones(len(self.places), np.bool_)
        curves = {
            name: roc(self.truth[keep, k], self.probability[keep, k])
            for k, name in enumerate(self.classes)
        }
        return {name: curve for name, curve in curves.items() if curve is not None}


def check_apart(request: EvaluationRequest, scored: ScoringTables) -> None:
    """Raise UsageError if a class to leave out of the means belongs to no classifier."""
    known = list(dict.fromkeys(name for columns in scored.heads().values() for name in columns))
    if unknown := [name for name in request.apart if spelled(name) not in known]:
        there = (
            f"the classes of the pack are {', '.join(known)}"
            if known
            else "the pack has no classifier"
        )
        raise UsageError(f"--apart {unknown[0]}: no such class; {there}")


def _single(classes: Bools) -> NDArray[np.int64]:
    """Return (N,) the index of the one class of each photo; the last index stands for none."""
    any_of_them = np.asarray(classes.any(axis=1), np.bool_)
    return np.where(any_of_them, classes.argmax(axis=1), classes.shape[1]).astype(np.int64)


def _place(name: str) -> int:
    return papers.ORDER.index(name) if name in papers.ORDER else len(papers.ORDER)
