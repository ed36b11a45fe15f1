"""Requests and answers on a control socket, and their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import msgspec

from softcxl.fabric.errors import SoftCXLError

VERSION = 1
"""The version of these messages. A server answers its own only."""

_Made = TypeVar("_Made")


class RequestError(SoftCXLError):
    """A request that says what cannot be: a verb or an argument that there is not, or of another type."""

    exit_code = 2


class Garbage(RequestError):
    """A line that is no request at all."""


class _Versioned(msgspec.Struct):
    version: int


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """What a client asks for."""

    version: int
    verb: str
    host: str | None = None
    arguments: dict[str, Any] = {}


class Answer(msgspec.Struct):
    """What a verb said, and its exit status."""

    version: int = VERSION
    status: int = 0
    stdout: str = ""
    stderr: str = ""
    stdout_base64: bytes | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, status: int, stdout: bytes, stderr: str) -> Answer:
        """The answer with that stdout, be it text or not."""
        try:
            return cls(status=status, stdout=stdout.decode(), stderr=stderr)
        except UnicodeDecodeError:
            return cls(status=status, stderr=stderr, stdout_base64=stdout)

    @property
    def said(self) -> bytes:
        """What it wrote to stdout."""
        return self.stdout.encode() if self.stdout_base64 is msgspec.UNSET else self.stdout_base64


def read_request(line: bytes) -> Request:
    """The request in a line. Raises `Garbage` for one that is none, `RequestError` for another version."""
    try:
        version = msgspec.json.decode(line, type=_Versioned).version
        if version != VERSION:
            raise RequestError(f"version {version} is asked for; this server speaks {VERSION}")
        return msgspec.json.decode(line, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Garbage(f"no request of a verb: {error}") from error


def read_answer(line: bytes) -> Answer:
    """The answer in a line. Raises `Garbage`."""
    try:
        return msgspec.json.decode(line, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Garbage(f"no answer of a server: {error}") from error


def write(message: Request | Answer) -> bytes:
    """A message as its line."""
    return msgspec.json.encode(message)


def plain(verb: object) -> dict[str, Any]:
    """The arguments of a verb as a request has them."""
    given: dict[str, Any] = msgspec.to_builtins(verb)
    return given


def make(verb: type[_Made], arguments: Mapping[str, Any]) -> _Made:
    """The verb of that type with these arguments. Raises `RequestError` for one that it has not."""
    try:
        made = msgspec.convert(arguments, verb)
    except (msgspec.ValidationError, OverflowError) as error:
        raise RequestError(f"arguments: {error}") from error
    _known(arguments, made, "arguments")
    return made


def _known(given: Mapping[str, Any], made: object, where: str) -> None:
    """An argument that nobody reads is an option that would silently do nothing."""
    names = [one.name for one in fields(made)] if is_dataclass(made) else []
    for name, one in given.items():
        if name not in names:
            raise RequestError(f"{where}: there is no {name!r}; there are {', '.join(names)}")
        if isinstance(one, dict):
            _known(one, getattr(made, name), f"{where}.{name}")
