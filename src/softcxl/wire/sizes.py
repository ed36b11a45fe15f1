"""Sizes as people write them: `256MiB`, `1GiB`, `0x1000`, `4096`.

>>> parse_size("256MiB")
268435456
>>> format_size(268435456)
'256MiB'
"""

from __future__ import annotations

import re

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

UNITS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_SPELLING = {unit.lower(): unit for unit in UNITS}
# The same in decimal units would differ by up to 10 %: said, not guessed.
_DECIMAL = {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB"}

# Nothing here is larger than a 64-bit address; the length limit keeps int() cheap whatever is given.
_NUMBER = re.compile(r"0[xX][0-9a-fA-F_]{1,24}|0|[1-9][0-9_]{0,24}")
_SIZE = re.compile(r"([1-9][0-9_]{0,24}|0)(\.[0-9]+)?\s*([A-Za-z]*)")


def parse_number(text: str) -> int:
    """A whole number, decimal or `0x…`, `_` allowed between digits. ValueError says what is allowed."""
    text = text.strip()
    if re.fullmatch(r"0[0-9_]+", text):
        raise ValueError(f"{text!r} starts with 0; write it in decimal without the 0, or as 0x…")
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{shorten(text)} is not a whole number; write it in decimal or as 0x…")
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(f"{shorten(text)} is not a whole number; check its _ signs") from None


def parse_size(text: str) -> int:
    """Bytes from `256MiB`, `1GiB`, `64 KiB`, a plain number or `0x…`. ValueError says what is allowed."""
    text = text.strip()
    match = _SIZE.fullmatch(text)
    if not match or not match[3] or text[:2].lower() == "0x":
        if match and match[2]:
            raise ValueError(f"{shorten(text)} is not a whole number of bytes")
        return _parse_bytes(text)
    digits, fraction, unit = match.groups()
    if unit.lower() not in _SPELLING:
        meant = _DECIMAL.get(unit[0].lower())
        hint = f"; did you mean {digits}{fraction or ''}{meant}?" if meant else ""
        raise ValueError(f"{shorten(text)} has no known unit; units are {', '.join(UNITS)}{hint}")
    if fraction:
        raise ValueError(f"{shorten(text)} is not a whole number; write it in a smaller unit")
    return parse_number(digits) * UNITS[_SPELLING[unit.lower()]]


def _parse_bytes(text: str) -> int:
    try:
        return parse_number(text)
    except ValueError as error:
        if re.match(r"0[0-9_]", text):
            raise
        message = (
            f"{shorten(text)} is not a size; write one like 256MiB, 1GiB, 0x10000000 or a number of bytes"
        )
        raise ValueError(message) from error


def format_size(size: int) -> str:
    """The shortest exact spelling: `1GiB`, `384MiB`, `1000B`; the inverse of `parse_size`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]}{unit}"
    return f"{size}B"


def shorten(text: str, limit: int = 60) -> str:
    """`text` quoted for a message, cut where it is long."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
