"""Test what a detector gets of the boxes that people drew, and that invalid ones are left out by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.errors import UsageError
from skinbatch.train.annotated_boxes import network_sizes


def boxed(
    *boxes: tuple[float, float, float, float], width: int = 1280, height: int = 640
) -> AnnotatedPhoto:
    said = np.array(boxes, np.float32).reshape(-1, 4)
    return AnnotatedPhoto("a.jpg", Path("a.xml"), None, width, height, said, ("acne",) * len(said))


def test_sizes_are_those_that_the_network_sees() -> None:
    large = boxed((0, 0, 100, 50))
    small = boxed((0, 0, 100, 50), width=160, height=320)
    np.testing.assert_allclose(network_sizes([large, small], 640, 1.0).wh, [[50, 25], [100, 50]])
    np.testing.assert_allclose(network_sizes([large, small], 640, 4.0).wh, [[50, 25], [200, 100]])


def test_what_is_no_box_is_counted_by_reason_and_left_out() -> None:
    found = network_sizes(
        [boxed((5, 5, 5, 9), (1280, 0, 1300, 9), (0, -9, 8, 0), (0, 0, np.nan, 4), (0, 0, 64, 64))],
        640,
        1.0,
    )
    assert {reason: len(names) for reason, names in found.left_out.items()} == {
        "empty": 1,
        "outside the photo": 2,
        "not a number": 1,
    }
    assert found.left_out["empty"] == ("a.xml",)
    np.testing.assert_allclose(found.wh, [[32, 32]])


def test_a_box_over_the_edge_counts_with_what_is_in_the_photo() -> None:
    np.testing.assert_allclose(
        network_sizes([boxed((1200, -20, 1360, 80))], 1280, 1.0).wh, [[80, 80]]
    )


def test_photos_nobody_annotated_are_passed_over_and_an_unknown_size_is_named() -> None:
    unsaid = AnnotatedPhoto("b.jpg", Path("b.jpg"), Path("b.jpg"))
    assert network_sizes([unsaid, boxed((0, 0, 64, 64))], 1280, 1.0).photos == 1
    with pytest.raises(UsageError, match=r"a\.xml: gives no size, and a\.jpg is not beside it"):
        network_sizes([boxed((0, 0, 64, 64), width=0)], 640, 1.0)
