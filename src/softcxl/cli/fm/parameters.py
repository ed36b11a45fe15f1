"""What the verbs of `softcxl fm` take: numbers and their limits, sizes, bytes, extents, tags."""

from __future__ import annotations

import re
from typing import Any, NoReturn
from uuid import UUID

import click

from softcxl.cli.parameters import ParamType, size_of
from softcxl.fm import Extent
from softcxl.spec.command.registry import NAMES
from softcxl.spec.fm.mld_port import FM_OWNED_LD
from softcxl.wire.sizes import parse_number, shorten


class Number(ParamType):
    """A whole number from `lo` to `hi`, decimal or 0x…."""

    def __init__(self, name: str, lo: int, hi: int) -> None:
        self.name, self.lo, self.hi = name, lo, hi

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As `click.ParamType`."""
        if isinstance(value, int):
            return value
        try:
            number = parse_number(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self.lo <= number <= self.hi:
            self.fail(f"{value}; {self.lo} to {self.hi} are allowed", param, ctx)
        return number


class Endpoint(Number):
    """An endpoint: its ID, or what begins with no digit, a name."""

    def __init__(self) -> None:
        super().__init__("endpoint", 0, 0xFE)

    def convert(  # type: ignore[override]
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """As `click.ParamType`."""
        if isinstance(value, str) and not value[:1].isdigit():
            return value
        return super().convert(value, param, ctx)


class LogicalDevice(Number):
    """A logical device behind a port by its LD ID, or `fm`, the FM-owned one."""

    def __init__(self) -> None:
        super().__init__("ld", 0, 0xFFFE)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As `click.ParamType`."""
        return FM_OWNED_LD if value == "fm" else super().convert(value, param, ctx)


class Ranges(ParamType):
    """The memory of a logical device: the size of its range 1, and after a comma that of its range 2."""

    name = "range1[,range2]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """As `click.ParamType`."""
        parts = value.split(",")
        if len(parts) > 2:
            self.fail(
                f"{shorten(value)} has more than two sizes; a logical device has two ranges", param, ctx
            )
        first, second = (size_of(self, one, param, ctx) for one in (*parts, "0")[:2])
        return first, second


class ExtentType(ParamType):
    """An extent: DPA and length, `0x10000000:64MiB`."""

    name = "dpa:length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Extent:
        """As `click.ParamType`."""
        start, colon, length = value.partition(":")
        if not colon:
            self.fail(f"{shorten(value)} is no extent; write one like 0x10000000:64MiB", param, ctx)
        return Extent(size_of(self, start, param, ctx), size_of(self, length, param, ctx))


class Uuid(ParamType):
    """16 bytes, as a UUID is written."""

    name = "uuid"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        """As `click.ParamType`."""
        if isinstance(value, UUID):
            return value
        try:
            return UUID(value)
        except ValueError:
            says = f"{shorten(value)} is no {self.name}; write 32 hexadecimal digits, as of a UUID"
            self.fail(says, param, ctx)


class Tag(Uuid):
    """A tag of dynamic capacity."""

    name = "tag"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        """As `click.ParamType`."""
        tag = super().convert(value, param, ctx)
        if not tag.int:
            self.fail("a tag of zeros stands for none", param, ctx)
        return tag


class Opcode(ParamType):
    """An opcode, in hexadecimal as the standard prints it (`5100h`, `0x5100`, `5100`), or the command's name."""

    name = "opcode"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As `click.ParamType`."""
        if match := re.fullmatch(r"(?:0[xX])?([0-9a-fA-F]{1,4})[hH]?", value):
            return int(match[1], 16)
        found = [opcode for opcode, name in NAMES.items() if _plain(name) == _plain(value)]
        if not found:
            says = (
                f"{shorten(value)} is neither an opcode like 5100h nor a command like identify-switch-device"
            )
            self.fail(says, param, ctx)
        return found[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _fail(kind: ParamType, says: str, param: click.Parameter | None, ctx: click.Context | None) -> NoReturn:
    kind.fail(says, param, ctx)


BYTE = Number("number", 0, 0xFF)
PORT = Number("port", 0, 0xFF)
LD = Number("ld", 0, 0xFF)
VCS = Number("vcs", 0, 0xFF)
VPPB = Number("vppb", 0, 0xFF)
HOST = Number("host", 0, 0xFFFF)
REGION = Number("region", 0, 7)
ADDRESS = Number("address", 0, (1 << 64) - 1)
