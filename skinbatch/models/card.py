"""Write the card and the licence terms of a pack that grows.

Text about a stage is removed when the stage is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from skinbatch.models.pack import Pack

UNSTATED = "not stated"
# The card of an imported pack begins with this. Training writes its own text instead.
OURS = "Written by `skinbatch pack import`. What these models were trained on and how well they do is not known here."
# The first words of the headings of a stage's own section and of text from another pack.
TRAINED = "Trained: "
FILLED = "What was filled in from pack"


@dataclass(frozen=True, slots=True)
class _CardSection:
    """Hold the lines of Markdown from one heading to the next.

    title: empty for the lines before the first heading.
    """

    title: str
    text: str


def write_texts(grown: Pack, old: Pack | None, base: Pack | None) -> None:
    """Write the card and the licence terms of a pack.

    Text that somebody wrote into an older card stays below the table of stages.
    """
    terms: list[str] = []
    for text in (pack.text("LICENSE.md") for pack in (old, base) if pack is not None):
        if text and not any(text in earlier for earlier in terms):
            terms.append(text)
    if terms:
        (grown.directory / "LICENSE.md").write_text("\n\n".join(terms), encoding="utf-8")

    kept = ""
    if old is not None and (card := old.text("CARD.md")):
        written = card.partition(OURS)[2] if OURS in card else card
        kept = _without(written, _gone(old, grown))
    elif base is not None and (card := base.text("CARD.md")):
        kept = _filled_in(base, card, _gone(base, grown))
    text = "\n\n".join(part for part in (_table(grown), kept.strip()) if part)
    (grown.directory / "CARD.md").write_text(text + "\n", encoding="utf-8")


def _gone(before: Pack, grown: Pack) -> list[str]:
    """Return the stages that were replaced."""
    now = grown.stages
    same = {
        stem
        for stem, stage in before.stages.items()
        if stem in now and now[stem].numbers() == stage.numbers()
    }
    return [stem for stem in before.stages if stem not in same]


def _table(pack: Pack) -> str:
    columns = ("stage", "architecture", "classes", "parameters", "source", "licence")
    lines = [f"# {pack.name}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for stem, s in pack.stages.items():
        cells = (
            stem,
            s.arch,
            ", ".join(s.classes),
            f"{s.parameters or 0:,}",
            s.source or "–",
            s.licence or UNSTATED,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", OURS])


def _filled_in(base: Pack, card: str, gone: Collection[str]) -> str:
    """Return the parts of a base's card about the stages taken from it; all of it if all were."""
    nested = _moved(card, 1).replace("## ", "### ", 1)
    if gone:
        nested = f"{_shortened(base.name)}\n\n{_only_trained(nested, gone)}"
    return f"## {FILLED} `{base.name}`\n\n{nested}"


def _without(text: str, gone: Collection[str]) -> str:
    """Return a pack's own card without the sections of replaced stages.

    Sections that came from another pack's card are treated alike.
    """
    if not gone:
        return text
    kept = []
    written = False
    for section in _sections(text):
        if section.title.startswith(FILLED):
            heading, _, inner = section.text.partition("\n")
            name = section.title.removeprefix(FILLED).strip(" `")
            kept += [heading, "", _shortened(name), "", _only_trained(inner, gone)]
        elif section.title.startswith(TRAINED):
            kept += [section.text] if section.title.removeprefix(TRAINED) not in gone else []
        else:
            written = written or bool(section.text.strip())
            kept.append(section.text)
    replaced = " and ".join(f"`{stem}`" for stem in gone)
    note = f"The text below was in this card before {replaced} was replaced, and may describe the old one."
    return "\n".join(([note, ""] if written and note not in text else []) + kept)


def _only_trained(text: str, gone: Collection[str]) -> str:
    """Return the sections about single stages that the pack still has, all at one level.

    That includes those that an earlier pack had filled in. Other sections describe another pack as
    a whole.
    """
    kept = []
    for section in _sections(text):
        if section.title.startswith(FILLED):
            inner = section.text.partition("\n")[2]
            kept.append(_only_trained(_moved(inner, -1), gone))
        elif section.title.startswith(TRAINED) and section.title.removeprefix(TRAINED) not in gone:
            kept.append(section.text)
    return "\n".join(kept)


def _moved(text: str, levels: int) -> str:
    """Return the text with its headings so many levels further down."""
    lines = text.split("\n")
    for number, level, title in _headings(text):
        lines[number] = f"{'#' * (level + levels)} {title}"
    return "\n".join(lines)


def _shortened(base: str) -> str:
    return (
        "Only the parts of its card about a single stage that this pack still has are repeated. The whole card: "
        f"`skinbatch pack show {base}`."
    )


def _sections(text: str) -> Iterator[_CardSection]:
    """Split a card at the headings of the level of the stages' sections.

    `#` in a block of code is no heading.
    """
    headings = list(_headings(text))
    levels = [level for _, level, title in headings if title.startswith((TRAINED, FILLED))]
    # A card without such a section is one section.
    level = min(levels, default=0)
    starts = [(0, ""), *((at, title) for at, depth, title in headings if depth <= level)]
    lines = text.split("\n")
    ends = [at for at, _ in starts[1:]] + [len(lines)]
    for (start, title), end in zip(starts, ends, strict=True):
        yield _CardSection(title, "\n".join(lines[start:end]))


def _headings(text: str) -> Iterator[tuple[int, int, str]]:
    """Return the line number, level and title of every heading."""
    in_code = False
    for number, line in enumerate(text.split("\n")):
        if line.startswith("```"):
            in_code = not in_code
        elif not in_code and (heading := re.match(r"(#+) (.*)", line)):
            yield number, len(heading[1]), heading[2].strip()
