"""Check that a scorer imports no more than it needs, and that nothing is missing afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skinbatch.models.imports import later

NOT_USED = "torch._dynamo", "sklearn", "matplotlib", "scipy", "sympy", "torch.distributed.fsdp"
PROGRAM = """
import sys
import torch
from skinbatch import Scorer

Scorer("starter")
print(sorted(set(sys.argv[1:]) & set(sys.modules)))

import numpy as np
from mmdet.models.task_modules.assigners import hungarian_assigner

print(hungarian_assigner.linear_sum_assignment(np.eye(2))[1].tolist())

import matplotlib.pyplot
import mmengine.model.wrappers.fully_sharded_distributed
import sklearn.gaussian_process
import torchvision

twice = torch.compile(lambda x: 2 * x, backend="eager")
print(twice(torch.ones(2)).tolist(), torch._dynamo.utils.is_compile_supported("cpu"))
rois = torch.tensor([[0.0, 0, 0, 2, 2]])
print(torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), rois, 1).tolist())
"""


def test_a_scorer_starts_without_what_it_does_not_use_which_still_works_later() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *NOT_USED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[1, 0]", "[2.0, 2.0] True", "[[[[1.0]]]]"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make `skinbatch_drawing` importable, a package that would fail if it were imported now."""
    folder = tmp_path / "skinbatch_drawing"
    folder.mkdir()
    (folder / "__init__.py").write_text("ready = __import__('os').environ['READY']\n")
    (folder / "pens.py").write_text(
        "class Pen:\n    def __init__(self, width=1):\n        self.width = width\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("READY", raising=False)
    yield folder
    for name in [name for name in sys.modules if name.startswith("skinbatch_drawing")]:
        del sys.modules[name]


def test_a_module_is_imported_when_it_is_first_used(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with later("skinbatch_drawing", "skinbatch_drawing.pens"):
        import skinbatch_drawing as drawing
        import skinbatch_drawing.pens as pens
        from skinbatch_drawing.pens import Pen
    assert "skinbatch_drawing" not in sys.modules
    with pytest.raises(KeyError, match="READY"):
        Pen()

    monkeypatch.setenv("READY", "yes")
    pen = Pen(width=3)

    assert pen.width == 3
    assert isinstance(pen, Pen) and not isinstance(3, Pen)
    assert type(pen) is pens.Pen is sys.modules["skinbatch_drawing.pens"].Pen
    assert drawing.ready == "yes"
    with pytest.raises(AttributeError, match="brushes"):
        _ = pens.brushes


def test_a_module_that_is_there_already_stays(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READY", "yes")
    import skinbatch_drawing

    with later("skinbatch_drawing"):
        import skinbatch_drawing as again

    assert again is skinbatch_drawing
