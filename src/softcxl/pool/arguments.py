"""What a program gives to the pool's methods, checked: an error says what was given, and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from softcxl.pool import layout
from softcxl.pool.errors import Refused
from softcxl.wire.sizes import parse_size

LONGEST: Final = 1_000_000_000
"""Seconds, at most: thirty years."""


def name(given: str) -> bytes:
    """A name as it stands in the directory. Raises `Refused`."""
    try:
        return layout.encode_name(given)
    except ValueError as error:
        raise Refused(str(error)) from None


def size(given: int | str, most: int) -> int:
    """Bytes, 1 to `most`, of a number or of what is written like `"64MiB"`. Raises `Refused`."""
    try:
        found = parse_size(given) if isinstance(given, str) else given
    except ValueError as error:
        raise Refused(f"size={given!r}: {error}") from None
    return count(found, 1, most, "size")


def count(given: Any, least: int, most: int, what: str) -> int:
    """The same number, if it is a whole one. Raises `Refused`, also where it is not between the two."""
    if isinstance(given, bool) or not hasattr(given, "__index__"):
        raise Refused(f"{what}={given!r}: it is a whole number")
    if not least <= given <= most:
        raise Refused(f"{what}={given!r}: it is between {least} and {most}")
    return int(given)


def seconds(given: Any, what: str) -> float:
    """The same number. Raises `Refused` where there can be no such time."""
    if not hasattr(given, "__float__") or not 0 <= given <= LONGEST:
        raise Refused(f"{what}={given!r}: it is between 0 and {LONGEST:,} seconds")
    return float(given)


def one_of(given: str, allowed: Mapping[str, Any], what: str) -> Any:
    """What that word means. Raises `Refused` for another one."""
    if given not in allowed:
        raise Refused(f"{what}={given!r}: it is one of {', '.join(allowed)}")
    return allowed[given]
