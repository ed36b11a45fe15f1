"""Fields: runs of bits in a register, each with an access law and a type."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from softcxl.wire.access import word_of
from softcxl.wire.errors import DeclarationError, RangeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from softcxl.wire.law import Law
    from softcxl.wire.register import Register

    class _Accessor:
        """To a type checker a field is the descriptor that it declares below."""

else:
    _Accessor = property  # whose `__get__` and `__set__` are C: half the cost of a field access

T = TypeVar("T")
E = TypeVar("E", bound=enum.IntEnum)


class Field(_Accessor, Generic[T]):
    """One field of a register: bits `hi` down to `lo`, inclusive.

    On a register class it describes itself; on an instance it reads and writes the field's value. A number
    that is no member of the field's enum reads as an int. Writing a number that does not fit raises
    `RangeError`.
    """

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
        self.shared = False
        if not 0 <= self.reset <= self.ones:
            raise DeclarationError(
                f"bits({hi}, {lo}): reset value {reset:#x} does not fit {hi - lo + 1} bits"
            )

    def __set_name__(self, owner: type[Register], name: str) -> None:
        if self.register is None:
            self.name, self.register = name, owner
        else:
            self.shared = True  # told by the register, whose errors Python 3.11 does not wrap in another

    if TYPE_CHECKING:

        @overload
        def __get__(self, obj: None, owner: type) -> Field[T]: ...
        @overload
        def __get__(self, obj: Register, owner: type) -> T: ...
        def __get__(self, obj: Register | None, owner: type) -> Field[T] | T: ...
        def __set__(self, obj: Register, value: T) -> None: ...

    def clone(self) -> Field[T]:
        """The same field for another register."""
        return Field(self.hi, self.lo, self.law, self.kind, self.doc, self.reset)

    def bind(self, size: int) -> None:
        """Make the accessors for registers of `size` bytes."""
        accessors = _getter(self, size), _setter(self, size)
        super().__init__(*accessors, None, self.doc)  # type: ignore[call-arg]

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
        """`Register.field`, for messages."""
        return f"{self.register.__name__ if self.register else '?'}.{self.name}"

    def __repr__(self) -> str:
        return f"<{self.label} [{self.hi}:{self.lo}] {self.law}>"


def _getter(field: Field[Any], size: int) -> Callable[[Any], Any]:
    unpack_from, lo, ones, mask = word_of(size).unpack_from, field.lo, field.ones, field.mask
    if field.kind is bool:
        return lambda register: unpack_from(register._data, register._at)[0] & mask != 0
    if field.kind is int:
        return lambda register: unpack_from(register._data, register._at)[0] >> lo & ones
    member = {int(one): one for one in field.kind}.get  # type: ignore[attr-defined]

    def get(register: Any) -> Any:
        number = unpack_from(register._data, register._at)[0] >> lo & ones
        return member(number, number)

    return get


def _setter(field: Field[Any], size: int) -> Callable[[Any, Any], None]:
    word, lo, ones = word_of(size), field.lo, field.ones
    unpack_from, pack_into, others = word.unpack_from, word.pack_into, (1 << 8 * size) - 1 & ~field.mask

    def put(register: Any, value: Any) -> None:
        if not 0 <= value <= ones:
            raise RangeError(
                f"{field.label}: {value!r} does not fit {ones.bit_length()} bits (0 to {ones:#x})"
            )
        data, at = register._data, register._at
        pack_into(data, at, unpack_from(data, at)[0] & others | value << lo)

    return put


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
    if not (isinstance(kind, type) and issubclass(kind, enum.IntEnum)):
        raise DeclarationError(f"bits({hi}, {lo}): takes an IntEnum or a description, not {kind!r}")
    for member in kind:
        if not 0 <= member < 1 << (hi - lo + 1):
            raise DeclarationError(
                f"bits({hi}, {lo}): {kind.__name__}.{member.name} does not fit {hi - lo + 1} bits"
            )
    return Field(hi, lo, law, kind, doc, reset)
