"""What a program gives to the pool's methods, checked: an error says what was given, and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softcxl.pool import layout
from softcxl.pool.errors import Refused
from softcxl.wire.sizes import parse_size


def name(given: str) -> bytes:
    """A name as it stands in the directory. Raises `Refused`."""
    try:
        return layout.encode_name(given)
    except ValueError as error:
        raise Refused(str(error)) from None


def size(given: int | str, most: int) -> int:
    """Bytes, 1 to `most`, of a number or of what is written like `"64MiB"`. Raises `Refused`."""
    try:
        found = parse_size(given) if isinstance(given, str) else int(given)
    except (ValueError, OverflowError) as error:
        raise Refused(f"size={given!r}: {error}") from None
    return int(within(found, 1, most, "size"))


def within(given: float, least: float, most: float, what: str) -> Any:
    """The same number. Raises `Refused` where it is not between the two."""
    if not least <= given <= most:
        raise Refused(f"{what}={given!r}: it is between {least} and {most:g}")
    return given


def one_of(given: str, allowed: Mapping[str, Any], what: str) -> Any:
    """What that word means. Raises `Refused` for another one."""
    if given not in allowed:
        raise Refused(f"{what}={given!r}: it is one of {', '.join(allowed)}")
    return allowed[given]
