"""Registers: bit fields placed where the standard prints them, with an access law each.

A `Register` class is a table compiled once, at import; an instance is a typed view of the bytes that hold it,
its own or a register file's.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import struct
from typing import Any, ClassVar, Generic, Self, TypeVar, cast, overload

from softcxl.wire.errors import DeclarationError, RangeError
from softcxl.wire.law import Law, Write

T = TypeVar("T")
E = TypeVar("E", bound=enum.IntEnum)

_WORDS = {8: struct.Struct("<B"), 16: struct.Struct("<H"), 32: struct.Struct("<I"), 64: struct.Struct("<Q")}


class Field(Generic[T]):
    """One field of a register: bits `hi` down to `lo`, inclusive.

    On a register class it describes itself; on an instance it reads and writes the field's value.
    """

    __slots__ = ("doc", "hi", "kind", "law", "lo", "mask", "name", "ones", "register", "reset")

    def __init__(self, hi: int, lo: int, law: Law, kind: type, doc: str, reset: int) -> None:
        if lo < 0 or hi < lo:
            raise DeclarationError(
                f"bits({hi}, {lo}): the high bit comes first and the low bit is not negative"
            )
        self.hi, self.lo, self.law, self.kind, self.doc = hi, lo, law, kind, doc
        self.ones = (1 << (hi - lo + 1)) - 1
        self.mask = self.ones << lo
        self.reset = int(reset)
        self.name = ""
        self.register: type[Register] | None = None
        if not 0 <= self.reset <= self.ones:
            raise DeclarationError(
                f"bits({hi}, {lo}): reset value {reset:#x} does not fit {hi - lo + 1} bits"
            )

    def __set_name__(self, owner: type[Register], name: str) -> None:
        self.name, self.register = name, owner

    @overload
    def __get__(self, obj: None, owner: type) -> Field[T]: ...
    @overload
    def __get__(self, obj: Register, owner: type) -> T: ...
    def __get__(self, obj: Register | None, owner: type) -> Field[T] | T:
        if obj is None:
            return self
        number = (obj._load() >> self.lo) & self.ones
        return self.convert(number)

    def __set__(self, obj: Register, value: T) -> None:
        number = int(value)  # type: ignore[call-overload]
        if not 0 <= number <= self.ones:
            raise RangeError(f"{self.label}: {number:#x} does not fit {self.hi - self.lo + 1} bits")
        obj._store(obj._load() & ~self.mask | number << self.lo)

    def convert(self, number: int) -> T:
        """The field's number as its declared type; a number that is no member of its enum stays an int."""
        if self.kind is int:
            return number  # type: ignore[return-value]
        try:
            return self.kind(number)  # type: ignore[no-any-return]
        except ValueError:
            return number  # type: ignore[return-value]

    @property
    def label(self) -> str:
        return f"{self.register.__name__ if self.register else '?'}.{self.name}"

    def __repr__(self) -> str:
        return f"<{self.label} [{self.hi}:{self.lo}] {self.law}>"


def bit(position: int, law: Law, doc: str = "", *, reset: bool = False) -> Field[bool]:
    """A one-bit field."""
    return Field(position, position, law, bool, doc, reset)


@overload
def bits(hi: int, lo: int, law: Law, doc: str = "", /, *, reset: int = 0) -> Field[int]: ...
@overload
def bits(hi: int, lo: int, law: Law, kind: type[E], doc: str = "", /, *, reset: int = 0) -> Field[E]: ...
def bits(hi: int, lo: int, law: Law, kind: Any = "", doc: str = "", /, *, reset: int = 0) -> Field[Any]:
    """A field of bits `hi` to `lo`, an int or a member of the `IntEnum` given before its description."""
    if isinstance(kind, str):
        return Field(hi, lo, law, int, kind, reset)
    return Field(hi, lo, law, kind, doc, reset)


@dataclasses.dataclass(frozen=True, slots=True)
class RegisterLayout:
    """A register's table, compiled: one mask a law, the reset value, and where it is placed (if it is)."""

    name: str
    spec: str
    doc: str
    width: int
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

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.width // 8


def _own_fields(cls: type) -> list[Field[Any]]:
    found: dict[str, Field[Any]] = {}
    for base in reversed(cls.__mro__):
        found.update({name: value for name, value in vars(base).items() if isinstance(value, Field)})
    return sorted(found.values(), key=lambda field: field.lo)


def _compile(cls: type, width: int, spec: str) -> RegisterLayout:
    if width <= 0 or width % 8:
        raise DeclarationError(f"{cls.__name__}: width {width} is not a positive multiple of 8 bits")
    fields, used = _own_fields(cls), 0
    for field in fields:
        if field.name.startswith("_"):
            raise DeclarationError(f"{field.label}: a field's name does not begin with an underscore")
        if field.hi >= width:
            raise DeclarationError(f"{field.label}: bit {field.hi} lies outside {width} bits")
        if used & field.mask:
            raise DeclarationError(f"{field.label}: bits {field.hi}:{field.lo} overlap another field")
        used |= field.mask

    def mask(chosen: Any) -> int:
        return sum(field.mask for field in fields if chosen(field.law))

    return RegisterLayout(
        name=cls.__name__,
        spec=spec,
        doc=(cls.__doc__ or "").strip(),
        width=width,
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

    An instance holds a value: `Status(0x3)`, `Status.make(ready=True)`, or, inside a placed block, the bytes of
    its register file. `int(register)` is the whole value; fields read and write as attributes of their type.
    """

    __layout__: ClassVar[RegisterLayout]
    __slots__ = ("_at", "_data")
    _word: ClassVar[struct.Struct | None]

    def __init_subclass__(cls, *, width: int | None = None, spec: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = getattr(cls, "__layout__", None)
        if width is None:
            if inherited is None:
                raise DeclarationError(f"{cls.__name__}: a register needs width=")
            width, spec = inherited.width, spec or inherited.spec
        cls.__layout__ = _compile(cls, width, spec)
        cls._word = _WORDS.get(width)

    def __init__(self, value: int = 0) -> None:
        self._data: Any = bytearray(self.__layout__.size)
        self._at = 0
        if not 0 <= value < 1 << self.__layout__.width:
            raise RangeError(f"{type(self).__name__}: {value:#x} does not fit {self.__layout__.width} bits")
        self._store(value)

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
        fields = {field.name: copy.copy(field) for field in cls.__layout__.fields}
        made = cast(type[Self], _Slotted(cls.__name__, (cls,), {"__doc__": cls.__doc__, **fields}))
        made.__qualname__, made.__module__ = f"{block.__qualname__}.{name}", block.__module__
        made.__layout__ = dataclasses.replace(made.__layout__, block=block, offset=offset)
        return made

    def _load(self) -> int:
        word = self._word
        if word is not None:
            number: int = word.unpack_from(self._data, self._at)[0]
            return number
        return int.from_bytes(self._data[self._at : self._at + self.__layout__.size], "little")

    def _store(self, number: int) -> None:
        word = self._word
        if word is not None:
            word.pack_into(self._data, self._at, number)
        else:
            size = self.__layout__.size
            self._data[self._at : self._at + size] = number.to_bytes(size, "little")

    def __int__(self) -> int:
        return self._load()

    def __index__(self) -> int:
        return self._load()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Register):
            return self.__layout__.name == other.__layout__.name and int(self) == int(other)
        return int(self) == other if isinstance(other, int) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def assign(self, value: int) -> None:
        """Set the whole value from the device's side: no law applies."""
        if not 0 <= value < 1 << self.__layout__.width:
            raise RangeError(f"{type(self).__name__}: {value:#x} does not fit {self.__layout__.width} bits")
        self._store(value)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{field.name}={field.__get__(self, type(self))!r}" for field in self.__layout__.fields
        )
        return f"{type(self).__name__}({int(self):#x}: {shown})"
