"""How calls of services travel: numbers of functions, arguments, results and errors, as bytes.

A single argument of bytes and a result of bytes go as they are; everything else as MessagePack, typed by the function's
annotations. A request's kind is the function's number and how its arguments are written; an answer's kind says
whether it is a result or an error.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import typing
import zlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from softcxl.pool import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NUMBER: Final = 0xFFFFFF
"""The part of a request's kind that is the function's number; 0 above it: one argument of bytes, as it is."""
PLAIN: Final = 1 << 24
"""Positional arguments, an array."""
NAMED: Final = 2 << 24
"""An array of positional arguments, and a map of those by keyword."""
REFERENCE: Final = 16 << 24
"""Of a request or an answer: it is in a buffer, and this is where."""

MARKED: Final = 0x40000000
"""Of an answer: the core hands its kind on, too. Without it the answer is bytes, and nothing else is to be known."""
KEPT: Final = 0x80000000
"""Of an answer: its cell stays the client's until that has read the buffer, and frees it."""
VALUE: Final = MARKED | 1
"""MessagePack of what the function returned."""
FAILURE: Final = MARKED | 2
"""What the function raised (`encode_failure`)."""
UNSERVED: Final = MARKED | 3
"""The server's answer for calls that nobody took before the last worker went."""

DESCRIBE: Final = ".describe"
"""The name of the function that every service has: what functions there are."""

encode: Final = msgspec.msgpack.Encoder().encode
decode: Final = msgspec.msgpack.Decoder().decode
_failure: Final = msgspec.msgpack.Decoder(tuple[str, list[Any], str, str]).decode
_named: Final = msgspec.msgpack.Decoder(tuple[list[Any], dict[str, Any]]).decode

Buffer = bytes | bytearray | memoryview


def number_of(name: str) -> int:
    """The number by which a function is called: 24 bits of its name's CRC-32."""
    return zlib.crc32(name.encode()) & NUMBER


def encode_arguments(positional: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Buffer, int]:
    """Arguments as bytes, and how they are written. Raises TypeError for what cannot be sent."""
    try:
        if named:
            return encode((positional, named)), NAMED
        if len(positional) == 1 and isinstance(positional[0], Buffer):
            return positional[0], 0
        return encode(positional), PLAIN
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(f"these arguments cannot be sent: {error}") from error


def encode_result(result: Any) -> tuple[Buffer, int]:
    """A result as bytes, and the answer's kind. Raises TypeError for what cannot be sent."""
    if isinstance(result, Buffer):
        return result, 0
    try:
        return encode(result), VALUE
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(f"a result of type {type(result).__name__} cannot be sent: {error}") from error


class Signature:
    """What a function takes. Raises TypeError for one that cannot be a service's."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__
        self._signature = inspect.signature(function)
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except Exception as error:
            raise TypeError(f"{self.name}: its annotations cannot be read: {error}") from error
        parameters = [
            one.replace(annotation=hints.get(one.name, one.annotation))
            for one in self._signature.parameters.values()
        ]
        returned = hints.get("return", self._signature.return_annotation)
        self._signature = self._signature.replace(parameters=parameters, return_annotation=returned)
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(
                    f"{self.name}{self._signature}: {parameter} has no type that a service could check"
                )
        self._types = {parameter.name: hints.get(parameter.name, Any) for parameter in parameters}
        positional = [one for one in parameters if one.kind is not one.KEYWORD_ONLY]
        try:
            self._plain = self._decoder(positional)
            self._convert = {
                name: functools.partial(msgspec.convert, type=kind) for name, kind in self._types.items()
            }
            for kind in self._types.values():
                msgspec.msgpack.Decoder(kind)
        except TypeError as error:
            raise TypeError(f"{self.name}{self._signature}: {error}") from error
        required = [one for one in parameters if one.default is one.empty]
        first = positional[0] if positional else None
        self.takes_bytes = (
            first is not None and (not required or required == [first]) and self._types[first.name] is bytes
        )
        self._named_only = [one.name for one in required if one not in positional]
        self.plain = None if self._named_only else self._plain

    def _decoder(self, parameters: list[inspect.Parameter]) -> Callable[[Buffer], Any]:
        types = tuple(self._types[one.name] for one in parameters)
        if all(one.default is one.empty for one in parameters):
            return msgspec.msgpack.Decoder(tuple[types] if types else tuple[()]).decode  # type: ignore[valid-type]
        fields: list[Any] = [
            (f"a{place}", kind)
            if one.default is one.empty
            else (f"a{place}", kind, msgspec.field(default_factory=functools.partial(_same, one.default)))
            for place, (one, kind) in enumerate(zip(parameters, types, strict=True))
        ]
        made = msgspec.defstruct(self.name, fields, array_like=True, forbid_unknown_fields=True)
        decoder = msgspec.msgpack.Decoder(made).decode
        return lambda data: msgspec.structs.astuple(decoder(data))

    def __str__(self) -> str:
        return f"{self.name}{self._signature}"

    def arguments(self, kind: int, data: Buffer) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a request of that kind. Raises BadCall where they are not what the function takes."""
        try:
            if self._named_only and kind & ~NUMBER in (0, PLAIN):
                raise TypeError(f"missing a required argument: {self._named_only[0]!r}")
            if not kind & ~NUMBER:
                return (data,) if self.takes_bytes else self._plain(encode((data,))), {}
            if kind & ~NUMBER == PLAIN:
                return self._plain(data), {}
            if kind & ~NUMBER == NAMED:
                return self._bound(data)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise errors.BadCall(f"{self}: {error}") from error
        raise errors.BadCall(f"{self}: a request of kind {kind:#x} is of no version that is known here")

    def _bound(self, data: Buffer) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positional, named = _named(data)
        bound = self._signature.bind(*positional, **named)
        for name, value in bound.arguments.items():
            bound.arguments[name] = self._convert[name](value)
        return bound.args, bound.kwargs


def _same(value: Any) -> Any:
    return value


# -- errors ---------------------------------------------------------------------------------------------------------

_KNOWN: Final[dict[str, type[Exception]]] = {
    f"{kind.__module__}.{name}": kind
    for where in (builtins, errors)
    for name, kind in vars(where).items()
    if isinstance(kind, type) and issubclass(kind, Exception)
}
_SIMPLE = (str, int, float, bool, bytes, type(None))
_MOST_TRACE = 2000
_MOST_MESSAGE = 800
_MOST_KIND = 200


def encode_failure(error: BaseException, trace: str = "") -> bytes:
    """An exception, to be raised on the other side."""
    kind = _first(f"{type(error).__module__}.{type(error).__qualname__}", _MOST_KIND)
    # What is told is bound to fit a cell, whatever it is that failed, and in whatever letters
    trace = _last(trace, _MOST_TRACE)
    try:
        message = _first(str(error), _MOST_MESSAGE)
        given = list(error.args) if all(isinstance(one, _SIMPLE) for one in error.args) else [message]
        data = encode((kind, given, message, trace))
        return data if len(data) < 4000 else encode((kind, [message], message, trace))
    except Exception:  # noqa: BLE001  whatever it raises, it is told
        return encode((kind, [], "what it said cannot be told", ""))


def _first(text: str, most: int) -> str:
    """What of it has so many bytes of UTF-8."""
    return text[:most].encode(errors="replace")[:most].decode(errors="ignore")


def _last(text: str, most: int) -> str:
    return text[-most:].encode(errors="replace")[-most:].decode(errors="ignore")


def decode_failure(data: Buffer) -> Exception:
    """The exception that stands there: a builtin one and one of the pool's as itself, another as RemoteError."""
    try:
        kind, given, message, trace = _failure(data)
    except msgspec.MsgspecError as error:
        return errors.Corrupt(f"a service answered with an error that cannot be read: {error}")
    known = _KNOWN.get(kind)
    if known is None:
        return errors.RemoteError(f"{kind}: {message}" if message else kind, kind, trace)
    try:
        found = known(message, kind, trace) if issubclass(known, errors.RemoteError) else known(*given)
    except Exception:  # noqa: BLE001  whatever it raises, it is told
        return errors.RemoteError(f"{kind}: {message}", kind, trace)
    if trace:
        found.add_note(f"in the service:\n{trace}")
    return found
