"""Check that a scorer imports no more than it needs, and that nothing is missing afterwards."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import torch
from skinbatch import Scorer

Scorer("starter")
print(sorted({"torch._dynamo", "sklearn"} & set(sys.modules)))

import sklearn.gaussian_process
import torchvision

twice = torch.compile(lambda x: 2 * x, backend="eager")
print(twice(torch.ones(2)).tolist(), torch._dynamo.utils.is_compile_supported("cpu"))
rois = torch.tensor([[0.0, 0, 0, 2, 2]])
print(torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), rois, 1).tolist())
"""


def test_a_scorer_starts_without_dynamo_and_scikit_learn_which_still_work_later() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[2.0, 2.0] True", "[[[[1.0]]]]"]
