"""How what a verb has found looks: tables, trees and bytes in a terminal, or JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from softcxl.wire.sizes import format_size


def table(*headings: str, rows: Iterable[Iterable[object]]) -> Table:
    """A table without lines: a heading for each column, what is None as a dash."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(heading)
    for row in rows:
        made.add_row(*map(cell, row))
    return made


def titled(title: str, *parts: RenderableType) -> Group:
    """A line above other things."""
    return Group(Text(title, "bold"), *parts)


def facts(found: Mapping[str, Any]) -> Table:
    """Names and values, a line each."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column()
    for name, value in found.items():
        made.add_row(words(name), cell(value))
    return made


def cell(value: object) -> Text:
    """A value as text; names of the standard's are written as people write them, a `Text` stays as it is."""
    if isinstance(value, Text):
        return value
    if value is None:
        return Text("-", "dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, list):
        numbers = bool(value) and all(type(one) is int for one in value)
        return Text(ranges(value) if numbers else ", ".join(words(str(one)) for one in value) or "-")
    text = str(value)
    return Text(words(text) if re.fullmatch(r"[a-z][a-z0-9_]*", text) else text)


#: Words that people write in another way than names do.
_WORDS = (
    "API", "BW", "CCI", "CXL", "DPA", "DSP", "FM", "FW", "HDM", "ID", "L0", "L0s", "L1", "L2", "LD", "LDs", "LSA",
    "MCTP", "MLD", "PBR", "PCIe", "PERST", "PID", "PPB", "QoS", "RCD", "SLD", "USP", "VCS", "vPPB", "vPPBs",
)  # fmt: skip
_SPELLED = {one.lower(): one for one in _WORDS}


def words(text: str) -> str:
    """Names as people write them.

    >>> words("bound_ld")
    'bound LD'
    """
    return re.sub(r"\w+", lambda word: _SPELLED.get(word[0], word[0]), text.replace("_", " "))


def ranges(numbers: list[int]) -> str:
    """Numbers in order, neighbours as a range: `0-3, 7`."""
    found: list[list[int]] = []
    for one in numbers:
        if found and one == found[-1][1] + 1:
            found[-1][1] = one
        else:
            found.append([one, one])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in found)


def size(value: int | None) -> str | None:
    """Bytes as people write them; None stays."""
    return None if value is None else format_size(value) if value else "0"


def lanes(link: Mapping[str, Any]) -> str:
    """A link: its width and speed, or its state where it has none."""
    if not link["width"] or link["speed"] is None:
        return words(str(link["ltssm"]))
    return f"x{link['width']} {link['speed']:g} GT/s, {words(str(link['ltssm']))}"


def moment(timestamp: int) -> str:
    """A timestamp, in ns since 1970, to the second.

    >>> moment(1_700_000_000_000_000_000)
    '2023-11-14T22:13:20Z'
    """
    if not timestamp:
        return "(no time)"
    return datetime.fromtimestamp(timestamp // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def console() -> Console:
    """A console on stdout that shows text as it is: no emoji names, no colours of its own making."""
    # rich takes 80 columns where there is no terminal, and cuts a tree there: what is piped gets room for any line.
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 10_000)


def print_json(data: Any) -> None:
    """Print JSON: in characters where stdout has all of them, escaped where it has not."""
    complete = "utf" in (sys.stdout.encoding or "").lower()
    click.echo(json.dumps(data, indent=2, ensure_ascii=not complete))


def emit(as_json: bool, data: Any, render: Callable[[Any], Any]) -> None:
    """Print what a verb has found: as JSON, or as `render` makes it for people."""
    if as_json:
        print_json(data)
        return
    terminal = console()
    with terminal.capture() as captured:
        terminal.print(render(data), markup=False)  # names may hold what would be markup
    for line in captured.get().splitlines():
        click.echo(line.rstrip())  # a table's last column is padded, too


def dump(data: bytes, start: int = 0) -> list[str]:
    """Bytes in lines of 16, each with the address of its first."""
    return [f"{start + at:08x}: {data[at : at + 16].hex(' ', 1)}" for at in range(0, len(data), 16)]
