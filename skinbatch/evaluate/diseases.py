"""Classes of whole photos against those that people gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from skinbatch.errors import UsageError
from skinbatch.evaluate import papers
from skinbatch.evaluate.request import Judged, Request
from skinbatch.evaluate.scored import DISEASE, Scored, spelled
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.classification import classification, roc

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

NONE = "none"
CHOSEN_FROM = 0.5
"""Probability from which on a class is chosen, where the tables hold no choice of their own."""


class Diseases:
    """Photos whose classes people gave, and the probabilities of one classifier. places: (n,) of them among the judged.

    A photo of a class that the classifier does not have is one of none of its classes. A photo without a face was not looked at:
    its probabilities count as 0, which is the whole pipeline's answer and says nothing of the classifier; `with_face` has the
    same numbers without such photos. What is chosen is `top_class` where no photo has two classes and the classifier is the one
    that fills it, else every class with a probability of at least 0.5.
    """

    def __init__(self, judged: Judged, scored: Scored, request: Request, head: str, columns: Mapping[str, str]) -> None:
        self.head = head
        self.classes = tuple(sorted(columns, key=_place))
        self.apart = tuple(name for name in map(spelled, request.apart) if name in self.classes)
        self.places = np.array([n for n, photo in enumerate(judged.photos) if photo.classes is not None], np.int64)
        rows = judged.rows[self.places]
        self.unknown: Counter[str] = Counter()
        number = {name: k for k, name in enumerate(self.classes)}
        self.truth = np.zeros((len(rows), len(self.classes)), np.bool_)
        for n, place in enumerate(self.places):
            for name in judged.photos[place].classes or ():
                wanted = request.renamed(name)
                if wanted in number:
                    self.truth[n, number[wanted]] = True
                elif wanted is not None:
                    self.unknown[name] += 1
        each = [scored.numbers(columns[name], rows) for name in self.classes]
        found = np.stack(each, axis=1).reshape(len(rows), len(self.classes))
        self._seen: Bools = np.asarray(np.isfinite(found).all(axis=1), np.bool_)
        self.probability = np.where(np.isfinite(found), found, 0)
        self.exclusive = bool((self.truth.sum(axis=1) <= 1).all())
        self.by_top = self.exclusive and head == DISEASE
        if self.by_top:
            tops = [spelled(top) if top else "" for top in scored.texts("top_class", rows)]
            self._chosen = np.array([[top == name for name in self.classes] for top in tops], np.bool_)
            self._chosen = self._chosen.reshape(self.truth.shape)
        else:
            self._chosen = self.probability >= CHOSEN_FROM
        self._groups = judged.groups_of(self.places)

    @property
    def concerned(self) -> bool:
        """Whether any photo is of one of the classes."""
        return bool(self.truth.any())

    def measure(self, keep: Bools, how: Resampling) -> dict[str, Any]:
        """Numbers of some of the photos. keep: (n,). `with_face`: over those that have one, where some have none."""
        truth, chosen = self.truth[keep], self._chosen[keep]
        faceless = keep & ~self._seen
        found: dict[str, Any] = {
            "head": self.head,
            "without_face": int(faceless.sum()),
            "without_face_of_class": self._of_class(faceless),
            "without_face_of_none": self._of_none(faceless),
            "chosen_by": "top_class" if self.by_top else f"probability >= {CHOSEN_FROM}",
            "apart": list(self.apart),
            **self._numbers(keep, how),
        }
        if faceless.any() and not np.array_equal(faceless, keep):
            found["with_face"] = self._numbers(keep & self._seen, how)
        if self.by_top:
            names = (*self.classes, NONE)
            cells = confusion_matrix(_single(truth), _single(chosen), labels=range(len(names))) if len(truth) else None
            found |= {"confusion": None if cells is None else cells.tolist(), "confusion_classes": list(names)}
        return found

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

    def _of_class(self, keep: Bools) -> dict[str, int]:
        return {name: int(self.truth[keep, k].sum()) for k, name in enumerate(self.classes)}

    def _of_none(self, keep: Bools) -> int:
        return int((~self.truth[keep].any(axis=1)).sum())

    def curves(self, *, with_face: bool = False) -> dict[str, tuple[Floats, Floats]]:
        """Class -> false and true positive rates of all photos, or of those with a face, in the order of paper 000's figure."""
        keep = self._seen if with_face else np.ones(len(self.places), np.bool_)
        found = {name: roc(self.truth[keep, k], self.probability[keep, k]) for k, name in enumerate(self.classes)}
        return {name: curve for name, curve in found.items() if curve is not None}


def check_apart(request: Request, scored: Scored) -> None:
    """Raises UsageError where a class that the means are to leave out is none of any classifier's."""
    known = list(dict.fromkeys(name for columns in scored.heads().values() for name in columns))
    if unknown := [name for name in request.apart if spelled(name) not in known]:
        there = f"the classes of the pack are {', '.join(known)}" if known else "the pack has no classifier"
        raise UsageError(f"--apart {unknown[0]}: no such class; {there}")


def _single(classes: Bools) -> NDArray[np.int64]:
    """(N,) number of the one class, or of none, which is the last."""
    any_of_them = np.asarray(classes.any(axis=1), np.bool_)
    return np.where(any_of_them, classes.argmax(axis=1), classes.shape[1]).astype(np.int64)


def _place(name: str) -> int:
    return papers.ORDER.index(name) if name in papers.ORDER else len(papers.ORDER)
