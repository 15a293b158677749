"""Test that what a document names exists: links, paths, commands, options, settings, columns.

Generated pages must be current.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from jobs import make_docs
from skinbatch.cli.main import app
from skinbatch.config import Config

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("cluster/**/*.md"))
    if page.name != "CHANGELOG.md"
)
# Folders that a path in a document may be relative to.
BASES = ("", "skinbatch", "docs", "tests", "cluster")

_CODE = re.compile(r"`([^`\n]+)`")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_PATH = re.compile(r"^[\w.*-]+(?:/[\w.*-]+)*\.(?:py|toml|md|yaml|yml|txt)$")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
_CALL = re.compile(r"(?:^|[;&|(] ?|-m )skinbatch [^;&|)\n]*", re.MULTILINE)
_COMMAND = re.compile(r"skinbatch ([a-z]+)\b")
_SETTING = re.compile(r"\[([a-z]+)\] ([a-z_]+)")
_NAME = re.compile(r"^[a-z]+(?:_[a-z0-9]+)+$")


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_of(page: Path) -> Iterator[str]:
    """Yield the text between backticks, outside fenced blocks."""
    yield from _CODE.findall(_FENCED.sub("", page.read_text(encoding="utf-8")))


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    yield name, group
    for child, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{name} {child}".strip())


@cache
def known_commands() -> dict[str, Any]:
    return dict(commands(typer.main.get_command(app)))


@cache
def known_options() -> set[str]:
    options = {"--help"}
    for command in known_commands().values():
        for parameter in command.params:
            options.update(parameter.opts)
            options.update(parameter.secondary_opts)
    return options


@cache
def source_text() -> str:
    files = [*ROOT.glob("skinbatch/**/*.py"), *ROOT.glob("jobs/*.py"), *ROOT.glob("tests/**/*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize(
    ("page", "text"),
    [("settings.md", make_docs.settings_page), ("output-format.md", make_docs.output_page)],
    ids=["settings", "output-format"],
)
def test_generated_pages_are_current(page: str, text: object) -> None:
    assert callable(text)
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == text(), (
        "run python jobs/make_docs.py"
    )


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]

    missing = [link for link in links if not (page.parent / link).exists()]

    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    missing = []
    for code in code_of(page):
        for word in code.split():
            if not _PATH.match(word) or word.startswith("pack.toml"):
                continue
            places = [ROOT / base for base in BASES] + [page.parent]
            beside = "/" not in word and any(ROOT.glob(f"skinbatch/**/{word}"))
            beside = (
                beside or any(page.parent.glob(f"**/{word}")) or any(ROOT.glob(f"tests/**/{word}"))
            )
            if not beside and not any(any(place.glob(word)) for place in places):
                missing.append(word)

    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_and_options_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join([*_FENCED.findall(text), *code_of(page)])
    # The arguments after the name of the program, up to the next program in the line.
    calls = [match.group(0) for match in _CALL.finditer(code)]

    unknown = {name for call in calls for name in _COMMAND.findall(call)} - set(known_commands())
    options = {option for call in calls for option in _OPTION.findall(call)}

    assert unknown == set()
    assert options - known_options() == set()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_settings_that_a_page_names_exist(page: Path) -> None:
    for section, setting in _SETTING.findall(page.read_text(encoding="utf-8")):
        assert setting in type(getattr(Config(), section)).model_fields, f"[{section}] {setting}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_columns_and_other_names_of_a_page_are_in_the_code(page: Path) -> None:
    if page.name == "output-format.md":
        pytest.skip("generated from the schemas themselves")
    # Ray adds prefixes to the names of metrics, and a suffix to those of counters.
    names = {
        code.removeprefix("ray_skinbatch_").removesuffix("_total")
        for code in code_of(page)
        if _NAME.match(code)
    }

    missing = {name for name in names if not re.search(rf"\b{name}\b", source_text())}

    assert missing == set()


def test_the_glossary_has_at_most_twenty_words() -> None:
    rows = [
        line
        for line in (ROOT / "docs/glossary.md").read_text().splitlines()
        if line.startswith("| ")
    ]

    assert 0 < len(rows) - 1 <= 20
