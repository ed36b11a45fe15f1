"""Registers: bit fields placed where the standard prints them, with an access law each.

A `Register` class is a table compiled once, at import; an instance is a typed view of the bytes that hold it,
its own or a register file's.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from softcxl.wire.access import Wide, word_of
from softcxl.wire.errors import DeclarationError, RangeError
from softcxl.wire.field import Field, bit, bits
from softcxl.wire.law import Write

if TYPE_CHECKING:
    import struct

_TAKEN = frozenset(("make", "over", "placed", "assign"))


@dataclasses.dataclass(frozen=True, slots=True)
class RegisterLayout:
    """A register's table, compiled: one mask a law, the reset value, and where it is placed (if it is).

    `width` is in bits, `size` and `offset` in bytes.
    """

    name: str
    spec: str
    doc: str
    width: int
    size: int
    fields: tuple[Field[Any], ...]
    rw: int
    w1c: int
    w1s: int
    once: int
    lockable: int
    sticky: int
    reset: int
    block: type | None = None
    offset: int = 0


def _own_fields(cls: type) -> list[Field[Any]]:
    """The fields of `cls` by position; those it inherits become its own, with its label, place and width."""
    found: dict[str, Field[Any]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            found.pop(name, None)
            if isinstance(value, Field):
                found[name] = value
    for name, field in found.items():
        if name not in vars(cls):
            found[name] = field.clone()
            found[name].__set_name__(cls, name)
            setattr(cls, name, found[name])
    return sorted(found.values(), key=lambda field: field.lo)


def _compile(cls: type, width: int, spec: str) -> RegisterLayout:
    if width <= 0 or width % 8:
        raise DeclarationError(f"{cls.__name__}: width {width} is not a positive multiple of 8 bits")
    fields, used = _own_fields(cls), 0
    for field in fields:
        if field.shared:
            raise DeclarationError(f"{cls.__name__}: {field.label} has one of its fields already")
        if field.name.startswith("_"):
            raise DeclarationError(f"{field.label}: a field's name does not begin with an underscore")
        if field.name in _TAKEN:
            raise DeclarationError(f"{field.label}: that name is taken by Register itself")
        if field.hi >= width:
            raise DeclarationError(f"{field.label}: bit {field.hi} lies outside {width} bits")
        if used & field.mask:
            raise DeclarationError(f"{field.label}: bits {field.hi}:{field.lo} overlap another field")
        used |= field.mask
        field.bind(width // 8)

    def mask(chosen: Any) -> int:
        return sum(field.mask for field in fields if chosen(field.law))

    return RegisterLayout(
        name=cls.__name__,
        spec=spec,
        doc=inspect.cleandoc(cls.__doc__ or ""),
        width=width,
        size=width // 8,
        fields=tuple(fields),
        rw=mask(lambda law: law.write is Write.STORE),
        w1c=mask(lambda law: law.write is Write.CLEAR),
        w1s=mask(lambda law: law.write is Write.SET),
        once=mask(lambda law: law.once),
        lockable=mask(lambda law: law.lockable),
        sticky=mask(lambda law: law.sticky),
        reset=sum(field.reset << field.lo for field in fields),
    )


class _Slotted(type):
    """Gives every register class empty slots, so that a misspelt field raises where it is written."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any
    ) -> _Slotted:
        namespace.setdefault("__slots__", ())
        return super().__new__(mcs, name, bases, namespace, **kwargs)


class Register(metaclass=_Slotted):
    """Base of all registers. Subclass with `width=` (bits) and `spec=` (clause) and list the fields.

    An instance holds a value: `Status(0x3)`, `Status.make(ready=True)`, or, inside a placed block, the bytes
    of its register file. `int(register)` is the whole value; fields read and write as attributes of their
    type.
    """

    __layout__: ClassVar[RegisterLayout]
    __slots__ = ("_at", "_data")
    _word: ClassVar[struct.Struct | Wide]
    _declared: ClassVar[type[Register]]  # the class as declared: itself, unless it is placed in a block

    def __init_subclass__(cls, *, width: int | None = None, spec: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = getattr(cls, "__layout__", None)
        if width is None:
            if inherited is None:
                raise DeclarationError(f"{cls.__name__}: a register needs width=")
            width = inherited.width
        cls.__layout__ = _compile(cls, width, spec or (inherited.spec if inherited else ""))
        cls._word, cls._declared = word_of(width // 8), cls
        unpack_from = cls._word.unpack_from
        # Bound here, it costs half of what a method that looks its word up does; records pack words through it.
        cls.__int__ = cls.__index__ = lambda self: unpack_from(self._data, self._at)[0]  # type: ignore[method-assign]

    def __init__(self, value: int = 0) -> None:
        self._data: Any = bytearray(self._word.size)
        self._at = 0
        if value:
            self.assign(value)

    @classmethod
    def make(cls, **fields: Any) -> Self:
        """A register value from its fields; those not named have their reset value."""
        register = cls(cls.__layout__.reset)
        known = {field.name for field in cls.__layout__.fields}
        for name, value in fields.items():
            if name not in known:
                raise AttributeError(
                    f"{cls.__name__} has no field {name!r}; it has {', '.join(sorted(known))}"
                )
            setattr(register, name, value)
        return register

    @classmethod
    def over(cls, data: Any, offset: int) -> Self:
        """The register as a live view of `data` (any writable buffer) at byte `offset`."""
        register = cls.__new__(cls)
        register._data, register._at = data, offset
        return register

    @classmethod
    def placed(cls, block: type, offset: int, name: str) -> type[Self]:
        """A subclass that knows its place in `block`; its fields name that place to hooks."""
        made = cast(type[Self], _Slotted(cls.__name__, (cls,), {"__doc__": cls.__doc__}))
        made.__qualname__, made.__module__ = f"{block.__qualname__}.{name}", block.__module__
        made.__layout__ = dataclasses.replace(made.__layout__, block=block, offset=offset)
        made._declared = cls._declared
        return made

    def assign(self, value: int) -> None:
        """Set the whole value from the device's side: no law applies."""
        if not 0 <= value < 1 << self.__layout__.width:
            raise RangeError(f"{type(self).__name__}: {value:#x} does not fit {self.__layout__.width} bits")
        self._word.pack_into(self._data, self._at, value)

    if TYPE_CHECKING:  # made for every register, above

        def __int__(self) -> int: ...
        def __index__(self) -> int: ...

    def __bytes__(self) -> bytes:
        return bytes(self._data[self._at : self._at + self.__layout__.size])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Register):
            return self._declared is other._declared and int(self) == int(other)
        return int(self) == other if isinstance(other, int) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> Register:
        """The value, with bytes of its own."""
        return self._declared(int(self))

    def __deepcopy__(self, memo: Any) -> Register:
        return self._declared(int(self))

    def __repr__(self) -> str:
        shown = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in self.__layout__.fields)
        return f"{type(self).__name__}({int(self):#x}: {shown})"


__all__ = ["Field", "Register", "RegisterLayout", "bit", "bits"]
