"""What a detector is shown of each source, and how many of its inputs have lesions: a source whose inputs nearly all have some,
beside one whose inputs have none, would be learned instead of the lesions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from skinbatch.train.detection.loader import Order, TrainingInputs

# Inputs that are drawn for the table; a share of half of them is then exact to 6 percentage points.
_DRAWN = 256


@dataclass(frozen=True, slots=True)
class Share:
    """inputs: of all that were drawn, the share of this source. with_lesions: of these, the share with a box."""

    source: str
    inputs: float
    with_lesions: float


def shares(inputs: TrainingInputs, order: Order) -> list[Share]:
    """Draw the first inputs of a training and return a row a source, in the order of their names."""
    keys = [key for batch in islice(order, -(-_DRAWN // order.batch)) for key in batch][:_DRAWN]
    drawn: Counter[str] = Counter()
    lesions: Counter[str] = Counter()
    for key in keys:
        source = inputs.source(key)
        drawn[source] += 1
        lesions[source] += len(inputs[key].boxes) > 0
    return [Share(name, drawn[name] / len(keys), lesions[name] / drawn[name]) for name in sorted(drawn)]


def as_lines(rows: list[Share]) -> Iterator[str]:
    """Yield a line a source, aligned."""
    width = max(len(row.source) for row in rows)
    for row in rows:
        yield (
            f"inputs of {row.source:{width}}: {row.inputs:4.0%} of all; "
            f"{row.with_lesions:4.0%} with lesions, {1 - row.with_lesions:4.0%} without"
        )
