"""What of the standard devices and switches have: declared, handled, tested in process, exercised by Linux in a guest.

All columns are derived (softcxl.device.coverage); the last two from what the tests were seen to do, which
`make coverage-table` writes down in docs/reference/coverage.json.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import softcxl.switch
from reference.text import table
from softcxl.device import coverage
from softcxl.device.coverage import GUEST, PROCESS, Evidence, Row

EVIDENCE = Path(__file__).parents[2] / "reference" / "coverage.json"

_INTRO = """What the standard names, and what of it is here. An empty cell is a gap: what is not handled is answered as
the standard has it for what a device lacks. The last two columns name a test that was seen to do it, successfully: in
this process, and with an unmodified Linux in a guest, through the device's door. Of register capabilities that is an
access to their registers, of event records that they were fetched."""


def page() -> str:
    seen = coverage.evidence(EVIDENCE)
    parts = ["# What of the standard is there", _INTRO]
    for title, rows in coverage.tables(softcxl.switch).items():
        parts += [f"## {title}", summary(rows, seen), table(HEAD, [cells(row, seen) for row in rows])]
    return "\n\n".join(parts)


HEAD = ("Number", "Name", "Declared from", "Handled by", "Tested in process", "By Linux in a guest")


def cells(row: Row, seen: Evidence) -> tuple[str, ...]:
    """A line of the table."""
    tests = [_test(seen.get(row.key, {}).get(kind, "")) for kind in (PROCESS, GUEST)]
    return row.number, row.name, row.clause, f"`{row.handler}`" if row.handler else "", *tests


def summary(rows: list[Row], seen: Evidence) -> str:
    """How many there are, and which gaps there are in what is handled."""
    handled = [row for row in rows if row.handler]
    counts: list[tuple[str, Callable[[Row], bool]]] = [
        ("declared", lambda row: bool(row.clause)),
        ("handled", lambda row: bool(row.handler)),
        ("tested in process", lambda row: bool(row.handler) and PROCESS in seen.get(row.key, {})),
        ("exercised by Linux", lambda row: bool(row.handler) and GUEST in seen.get(row.key, {})),
    ]
    text = ", ".join(f"{sum(map(has, rows))} {what}" for what, has in counts)
    lines = [f"{len(rows)} in the standard, {text}."]
    for kind, what in ((PROCESS, "in no test in process"), (GUEST, "never by Linux in a guest")):
        missing = [row.name for row in handled if kind not in seen.get(row.key, {})]
        lines.append(f"Handled, but {what}: {', '.join(missing) or 'none'}.")
    return "\n".join(f"- {line}" for line in lines)


def _test(file: str) -> str:
    path = PurePosixPath(file)
    return f"`{'/'.join(path.parts[1:])}`" if file else ""
