"""Hooks: a device's methods that run when software touches a register.

>>> from softcxl.wire import Block, Register, RegisterFile, RW, at, bit, on_write
>>> class Control(Register, width=32):
...     doorbell = bit(0, RW)
>>> class Mailbox(Block):
...     control = at(0x4, Control)
>>> class Bell:
...     @on_write(Mailbox.control.doorbell)
...     def ring(self, old: int, new: int) -> None:
...         print(f"{old} -> {new}")
>>> file = RegisterFile(0x100)
>>> mailbox = file.place(0x10, Mailbox, hooks=Bell())
>>> file.write(0x14, b"\\x01\\0\\0\\0")
0 -> 1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from softcxl.wire.errors import DeclarationError
from softcxl.wire.register import Field, Register

Method = TypeVar("Method", bound=Callable[..., None])
Place = type[Register] | Field[Any]


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook of a class: its method's name, and where in a block it listens (bytes, then bits)."""

    method: str
    write: bool
    block: type
    offset: int
    size: int
    lo: int
    ones: int


def _resolve(place: Place) -> tuple[type, int, int, int, int]:
    register = place.register if isinstance(place, Field) else place
    layout = register.__layout__ if register is not None else None
    if layout is None or layout.block is None:
        raise DeclarationError(
            f"{place!r} has no place: name it through its block, as Mailbox.control.doorbell"
        )
    lo, ones = (place.lo, place.ones) if isinstance(place, Field) else (0, (1 << layout.width) - 1)
    return layout.block, layout.offset, layout.size, lo, ones


def _mark(place: Any, write: bool) -> Callable[[Method], Method]:
    where = _resolve(place)

    def mark(method: Method) -> Method:
        marks = [*getattr(method, "__hooks__", ()), Hook(method.__name__, write, *where)]
        method.__hooks__ = marks  # type: ignore[attr-defined]
        return method

    return mark


def on_write(place: Any) -> Callable[[Method], Method]:
    """Run the method, as `method(old, new)`, after software wrote a register or field of a block.

    It runs whenever the write touches a byte that holds the field, whether or not the value changed.
    """
    return _mark(place, write=True)


def on_read(place: Any) -> Callable[[Method], Method]:
    """Run the method, as `method()`, before software reads a register or field of a block."""
    return _mark(place, write=False)


@lru_cache(maxsize=4096)
def listening(owner: Any, block: Any) -> tuple[Hook, ...]:
    """The hooks of the class `owner`, base classes first, that listen to registers of `block`; many objects of one
    class ask."""
    seen: dict[str, list[Hook]] = {}
    for base in reversed(owner.__mro__):
        for name, value in vars(base).items():
            if hasattr(value, "__hooks__"):
                seen[name] = value.__hooks__
    return tuple(hook for marks in seen.values() for hook in marks if issubclass(block, hook.block))
