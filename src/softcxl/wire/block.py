"""Blocks: registers at their offsets."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, overload

from softcxl.wire.errors import DeclarationError
from softcxl.wire.register import Register

R = TypeVar("R", bound=Register)


class Placed(Generic[R]):
    """A register of a block at a byte offset.

    On the block class it is the register's type, whose fields name the place to hooks; on a placed block it
    is the register itself.
    """

    def __init__(self, offset: int, register: type[R], doc: str) -> None:
        if offset < 0:
            raise DeclarationError(f"{register.__name__} at {offset}: an offset is not negative")
        self.offset, self.register, self.doc = offset, register, doc
        self.name = ""

    def __set_name__(self, owner: type[Block], name: str) -> None:
        self.name = name
        self.register = self.register.placed(owner, self.offset, name)

    @overload
    def __get__(self, obj: None, owner: type) -> type[R]: ...
    @overload
    def __get__(self, obj: Block, owner: type) -> R: ...
    def __get__(self, obj: Block | None, owner: type) -> type[R] | R:
        if obj is None:
            return self.register
        register = self.register.over(obj._data, obj._base + self.offset)
        obj.__dict__[self.name] = register
        return register


def at(offset: int, register: type[R], doc: str = "") -> Placed[R]:
    """Place `register` at byte `offset` of the block."""
    return Placed(offset, register, doc)


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """A block's table: its registers in order of offset, and its size in bytes."""

    name: str
    spec: str
    doc: str
    size: int
    registers: tuple[Placed[Any], ...]


class Block:
    """Base of all register blocks. Subclass with `spec=` and `size=` (bytes; default: its registers' end)."""

    __layout__: ClassVar[BlockLayout]
    _data: Any
    _base: int

    def __init_subclass__(cls, *, spec: str = "", size: int | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        found: dict[str, Placed[Any]] = {}
        for base in reversed(cls.__mro__):
            found.update({name: value for name, value in vars(base).items() if isinstance(value, Placed)})
        registers = sorted(found.values(), key=lambda placed: placed.offset)
        end = 0
        for placed in registers:
            where = f"{cls.__name__}.{placed.name}"
            if placed.name.startswith("_"):
                raise DeclarationError(f"{where}: a register's name does not begin with an underscore")
            if placed.name in ("base", "blank"):
                raise DeclarationError(f"{where}: that name is taken by Block itself")
            if placed.offset < end:
                raise DeclarationError(
                    f"{cls.__name__}.{placed.name} at {placed.offset:#x} overlaps the register before it"
                )
            end = placed.offset + placed.register.__layout__.size
        if size is not None and size < end:
            raise DeclarationError(f"{cls.__name__}: size {size:#x} is less than its registers' {end:#x}")
        inherited = getattr(cls, "__layout__", None)
        cls.__layout__ = BlockLayout(
            name=cls.__name__,
            spec=spec or (inherited.spec if inherited else ""),
            doc=inspect.cleandoc(cls.__doc__ or ""),
            size=end if size is None else size,
            registers=tuple(registers),
        )

    def __init__(self, data: Any, base: int = 0) -> None:
        """The block as a live view of `data` (any writable buffer) from byte `base`."""
        self.__dict__.update(_data=data, _base=base)

    if not TYPE_CHECKING:  # type checkers know which registers there are

        def __setattr__(self, name: str, value: object) -> None:
            known = ", ".join(placed.name for placed in self.__layout__.registers)
            what = f"{type(self).__name__}.{name}"
            raise AttributeError(f"{what}: assign to a register's field, or use its assign(); it has {known}")

    @classmethod
    def blank(cls) -> Self:
        """The block over bytes of its own, every register at its reset value."""
        block = cls(bytearray(cls.__layout__.size))
        for placed in cls.__layout__.registers:
            placed.__get__(block, cls).assign(placed.register.__layout__.reset)
        return block

    @property
    def base(self) -> int:
        """Byte offset of the block in the buffer or register file that holds it."""
        return self._base

    def __bytes__(self) -> bytes:
        return bytes(self._data[self._base : self._base + self.__layout__.size])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._base:#x}>"
