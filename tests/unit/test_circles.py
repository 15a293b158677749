"""Test that no module imports itself by way of others, whether at its top, in a function or for types."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "skinbatch"


def name_of(path: Path) -> str:
    """Return the dotted name of a module, or of the package that an `__init__.py` makes."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
PACKAGES = {name_of(path) for path in PACKAGE.rglob("__init__.py")}


@cache
def imports_of(module: str, source: str, *, of_types: bool) -> tuple[str, ...]:
    """Return the full name of every import, wherever in the module it is.

    of_types: those under TYPE_CHECKING too, which do not happen when the program runs.
    """
    return tuple(_imports_of(module, source, of_types))


def _imports_of(module: str, source: str, of_types: bool) -> Iterator[str]:
    package = module if module in PACKAGES else module.rpartition(".")[0]
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not of_types:
            waiting += node.orelse
            continue

        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph_of(sources: Mapping[str, str], *, of_types: bool) -> dict[str, set[str]]:
    """Return the modules of the house that each module imports."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        graph[module] = set()
        for name in imports_of(module, source, of_types=of_types):
            imported = name if name in sources else name.rpartition(".")[0]
            if imported in sources and imported != module:
                graph[module].add(imported)
    return graph


def circle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the modules of a circle in order, the first one again at the end; [] if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        return list(e.args[1])
    return []


@pytest.mark.parametrize("of_types", [False, True], ids=["at run time", "with types"])
def test_no_imports_go_in_a_circle(of_types: bool) -> None:
    assert circle_in(graph_of(SOURCES, of_types=of_types)) == []


@pytest.mark.parametrize(
    ("source", "of_types", "is_circle"),
    [
        ("from skinbatch.train import session", False, True),
        ("import skinbatch.train.session as s", False, True),
        ("def f():\n    from skinbatch.train.session import train", False, True),
        ("class A:\n    def f(self):\n        from .train.session import train", False, True),
        ("if TYPE_CHECKING:\n    from skinbatch.train.session import train", False, False),
        ("if TYPE_CHECKING:\n    from skinbatch.train.session import train", True, True),
        ("import json", True, False),
    ],
)
def test_a_circle_is_found_in_every_way_to_import(
    source: str, of_types: bool, is_circle: bool
) -> None:
    """`train/session.py` imports `errors.py`, which is the module of these sources."""
    graph = graph_of(SOURCES | {"skinbatch.errors": source}, of_types=of_types)
    circle = circle_in(graph)
    assert ({"skinbatch.errors", "skinbatch.train.session"} <= set(circle)) == is_circle
    assert bool(circle) == is_circle
