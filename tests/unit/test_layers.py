"""Test that the folder names are the architecture: who may import whom, and how long a file may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "skinbatch"
FLOORS = {
    **dict.fromkeys(
        (
            "types",
            "config",
            "errors",
            "ray_environment",
            "redact",
            "logs",
            "signals",
            "setting_errors",
            "toml_file",
            "lookahead",
        ),
        0,
    ),
    **dict.fromkeys(("durations", "streams", "unit_id", "worker_range"), 0),
    **dict.fromkeys(("grading", "metrics", "tables", "storage"), 1),
    **dict.fromkeys(("archive", "models"), 2),
    **dict.fromkeys(("annotations", "runs"), 3),
    **dict.fromkeys(("scoring", "selection"), 4),
    **dict.fromkeys(("engines", "train", "evaluate", "report", "export", "demo"), 5),
    "cli": 6,
}
# The files of the top floor: the command line and the package's own names.
TOP = (
    "__init__",
    "__main__",
    "cli",
    "console",
    "demo_run",
    "notebook",
    "reading",
)
MAY_IMPORT = {
    "torch": ("models", "scoring", "train"),
    "torchvision": ("models", "scoring", "train"),
    "ray": ("engines", "train"),
}
MOST_LINES = 400
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """Return the folder or file right under the package; `cli` for all of the top floor."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "cli" if first in TOP else first


def imports_of(path: Path, source: str) -> Iterator[tuple[int, str]]:
    """Return the line and the full dotted name of every import, wherever in the file it is."""
    package = ("skinbatch", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            yield from ((node.lineno, f"{base}.{name.name}") for name in node.names)


def violations(path: Path, source: str) -> Iterator[str]:
    room = room_of(path)
    for line, name in imports_of(path, source):
        top, *rest = name.split(".")
        where = f"{path.relative_to(PACKAGE.parent)}:{line} imports {name}"
        if top in MAY_IMPORT and room not in MAY_IMPORT[top]:
            yield f"{where}: only {', '.join(MAY_IMPORT[top])} may"
        if top != "skinbatch" or not rest or (other := rest[0]) == room or room == "cli":
            continue
        if other not in FLOORS:
            yield f"{where}: that is on the top floor"
        elif FLOORS[other] >= FLOORS[room] > 0:
            yield f"{where}: floor {FLOORS[room]} may not import from floor {FLOORS[other]}"
        elif FLOORS[other] > FLOORS[room]:
            yield f"{where}: floor 0 imports nothing above it"


def test_every_room_has_its_floor() -> None:
    assert {room_of(path) for path in FILES} <= set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_only_from_its_own_room_and_lower_floors(path: Path) -> None:
    assert list(violations(path, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_is_no_longer_than_one_noun_needs(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        (
            "runs/x.py",
            "from skinbatch.scoring.unit_scorer import score",
            "floor 3 may not import from floor 4",
        ),
        ("grading/x.py", "import torch.nn as nn", "only models, scoring, train may"),
        ("scoring/x.py", "def f():\n    import ray", "only engines, train may"),
        (
            "archive/x.py",
            "from skinbatch.models import packs",
            "floor 2 may not import from floor 2",
        ),
        ("archive/x.py", "from skinbatch import models", "floor 2 may not import from floor 2"),
        ("storage/x.py", "from ..cli import main", "floor 1 may not import from floor 6"),
        ("report/x.py", "from skinbatch.evaluate import f1", "floor 5 may not import from floor 5"),
        ("types.py", "from skinbatch.tables import names", "floor 0 imports nothing above it"),
        ("tables/x.py", "from skinbatch import score", "on the top floor"),
    ],
)
def test_the_first_that_goes_up_a_floor_is_named(file: str, line: str, complaint: str) -> None:
    (found,) = violations(PACKAGE / file, line)
    assert complaint in found
