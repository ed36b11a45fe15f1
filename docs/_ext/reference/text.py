"""Pieces of Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars in cells are escaped, line ends become spaces."""
    lines = [list(header), ["---"] * len(header), *rows]
    cells = ([" ".join(str(cell).split()).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def docstring(thing: object) -> str:
    """A docstring as Markdown: paragraphs as they are, what is indented or drawn as a block of text."""
    text = inspect.getdoc(thing) or ""
    parts = re.split(r"\n\s*\n", text)
    return "\n\n".join(_block(part) for part in parts if part.strip())


def _block(part: str) -> str:
    lines = part.splitlines()
    drawn = any(line.startswith((" ", ">>>", "====")) for line in lines) or "──" in part
    if not drawn:
        return part
    kind = "pycon" if ">>>" in part else "text"
    return f"```{kind}\n{part}\n```"


def first_sentence(thing: object) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
