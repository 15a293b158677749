"""Count how often a detector is shown each source, and how many of these inputs have lesions.

If nearly all inputs of one source have lesions and no input of another does, the detector learns to
recognise the source instead of the lesions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from skinbatch.train.detection.loader import Order, TrainingInputs

# Number of inputs that are drawn for the table. A share of half of them is then exact to 6
# percentage points.
_DRAWN = 256


@dataclass(frozen=True, slots=True)
class Share:
    """Hold one source's share.

    inputs: share of all drawn inputs. with_lesions: share of this source's inputs that have a box.
    """

    source: str
    inputs: float
    with_lesions: float


def shares(inputs: TrainingInputs, order: Order) -> list[Share]:
    """Draw the first inputs of a training and return one row for each source, sorted by name."""
    keys = [key for batch in islice(order, -(-_DRAWN // order.batch)) for key in batch][:_DRAWN]
    drawn: Counter[str] = Counter()
    lesions: Counter[str] = Counter()
    for key in keys:
        source = inputs.source(key)
        drawn[source] += 1
        lesions[source] += len(inputs[key].boxes) > 0
    return [
        Share(name, drawn[name] / len(keys), lesions[name] / drawn[name]) for name in sorted(drawn)
    ]


def as_lines(rows: list[Share]) -> Iterator[str]:
    """Yield one aligned line for each source."""
    width = max(len(row.source) for row in rows)
    for row in rows:
        yield (
            f"inputs of {row.source:{width}}: {row.inputs:4.0%} of all; "
            f"{row.with_lesions:4.0%} with lesions, {1 - row.with_lesions:4.0%} without"
        )
