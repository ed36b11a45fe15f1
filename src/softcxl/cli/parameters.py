"""What verbs take whatever they are about: sizes, and bytes in hexadecimal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from softcxl.wire.sizes import parse_size, shorten

# As of click 8.3 it is generic to type checkers; before that, and when it runs, it is not.
if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType


class Size(ParamType):
    """Bytes: `256MiB`, `1GiB`, a number."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As `click.ParamType`."""
        return value if isinstance(value, int) else size_of(self, value, param, ctx)


class Hex(ParamType):
    """Bytes in hexadecimal, with or without spaces, at most so many."""

    name = "hex"

    def __init__(self, most: int | None = None) -> None:
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """As `click.ParamType`."""
        if isinstance(value, bytes):
            return value
        try:
            data = bytes.fromhex(value.removeprefix("0x"))
        except ValueError:
            self.fail(f"{shorten(value)} is not bytes in hexadecimal, two digits each", param, ctx)
        if self.most is not None and len(data) > self.most:
            self.fail(f"{len(data)} bytes; {self.most} at most are allowed", param, ctx)
        return data


def size_of(kind: ParamType, text: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
    """Bytes, of what was written for a parameter of that kind."""
    try:
        return parse_size(text)
    except ValueError as error:
        kind.fail(str(error), param, ctx)
