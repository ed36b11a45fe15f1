"""What each key allows: as a check of values, and as words for messages and for the reference page.

The limits stand in the annotations of `softcxl.fabric.keys`; nothing here knows a particular key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import Meta, inspect

from softcxl.spec.command.memory import CAPACITY_UNIT
from softcxl.wire.sizes import format_size, shorten

#: Where a value stands: keys and indices from the top.
Path = tuple[str | int, ...]


def key(
    doc: str,
    *,
    form: str | None = None,
    least: int | None = None,
    most: int | None = None,
    unit: int | None = None,
    pattern: str | None = None,
) -> Meta:
    """One key: what it means, how it is written (`form`), and its limits.

    `least` and `most` bound a number, or the number of entries; `unit` is what a number is a multiple of.
    They are not msgspec's own limits, which know no 64-bit numbers and no optional ones.
    """
    limits = {"form": form, "least": least, "most": most, "unit": unit, "pattern": pattern}
    return Meta(description=doc, extra={name: limit for name, limit in limits.items() if limit is not None})


@dataclass(frozen=True)
class Fault:
    """A value that does not hold, by its path, and what else the verdict rests on.

    `because` names single values; `within` names places all of whose contents matter.
    """

    path: Path
    message: str
    because: tuple[Path, ...] = ()
    within: tuple[Path, ...] = ()

    def rests_on(self, broken: Path) -> bool:
        """Whether a fault at `broken` puts this one in doubt."""
        singles = (self.path, *self.because, *self.within)
        return any(one[: len(broken)] == broken for one in singles) or any(
            broken[: len(whole)] == whole for whole in self.within
        )


def spell(path: Path) -> str:
    """A path as people say it: `hosts.alpha.windows[0].size`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def closest(word: str, known: Iterable[object]) -> str:
    """`; did you mean 'mem0'?` where one of `known` is near `word`, else nothing."""
    match = difflib.get_close_matches(str(word)[:64], list(map(str, known)), n=1)
    return f"; did you mean {match[0]!r}?" if match else ""


def bare(kind: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    """A type without its annotations and without `| None`, and the limits that stood on it."""
    extra: dict[str, Any] = {}
    while True:
        if isinstance(kind, inspect.Metadata):
            extra |= kind.extra or {}
            kind = kind.type
        elif isinstance(kind, inspect.UnionType) and len(structs(kind)) < 2:
            kind = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
        else:
            return kind, extra


def structs(kind: inspect.Type) -> list[inspect.StructType]:
    """The kinds of mapping that may stand here, each with its tag where there are several."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    types = kind.types if isinstance(kind, inspect.UnionType) else [kind]
    return [one for one in types if isinstance(one, inspect.StructType)]


def optional(kind: inspect.Type) -> bool:
    """Whether null is allowed."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return isinstance(kind, inspect.UnionType) and any(
        isinstance(one, inspect.NoneType) for one in kind.types
    )


def is_number(kind: inspect.Type) -> bool:
    """Whether a bare type holds whole numbers."""
    if isinstance(kind, inspect.LiteralType):
        return isinstance(kind.values[0], int)
    return isinstance(kind, inspect.IntType)


def allowed(kind: inspect.Type) -> str:
    """What may stand here, in words: `a multiple of 256MiB`, `one of modulo, xor`."""
    inner, extra = bare(kind)
    if isinstance(inner, inspect.LiteralType):
        return _one_of(inner, extra)
    if isinstance(inner, inspect.StructType):
        shorthand = ", or a size" if getattr(inner.cls, "shorthand", None) else ""
        return f"a mapping with the keys {', '.join(names(inner))}{shorthand}"
    if isinstance(inner, inspect.DictType):
        return f"a mapping of names, {_many(extra)}"
    if isinstance(inner, inspect.ListType):
        return f"a list, {_many(extra)}"
    if is_number(inner):
        return _number(extra)
    if isinstance(inner, inspect.BoolType):
        return "true or false"
    forms = {
        "name": "a name of at most 32 letters, digits, _ and -, a letter first",
        "client": "a client's name of at most 63 letters, or *",
        "lease": "seconds like 10 or 0.5, or a duration like 500ms or 2min",
        "function": "a device's name, or that of a logical device, as pool.0",
        "class": "a Python class as `module:Class`",
        "uuid": "a UUID as 8-4-4-4-12 hexadecimal digits",
        "bytes": "bytes as hexadecimal digits, two each",
        "duration": "a duration like 2s, 500ms or 1.5s",
        "opcode": "an opcode as four hexadecimal digits and h, like 4000h, or any",
        "trigger": "`command 4000h`, `command any`, or `event` and a log: informational, warning, failure, fatal, any",
        "chance": "a probability over 0 and up to 1, like 0.25, or up to 100%",
        "pattern": "a regular expression",
    }
    return forms.get(extra.get("form", ""), "text")


def _one_of(kind: inspect.LiteralType, extra: dict[str, Any]) -> str:
    def shown(value: object) -> str:
        large = extra.get("form") == "size" and isinstance(value, int) and value >= CAPACITY_UNIT
        return format_size(value) if large and isinstance(value, int) else str(value)

    return f"one of {', '.join(map(shown, kind.values))}"


def names(kind: inspect.StructType) -> list[str]:
    """The keys of a mapping, that which says its kind first."""
    return [*([kind.tag_field] if kind.tag_field else []), *(one.encode_name for one in kind.fields)]


def _many(extra: dict[str, Any]) -> str:
    least, most = extra.get("least", 0), extra.get("most")
    return f"{least} to {most} entries" if least else f"at most {most} entries"


def _number(extra: dict[str, Any]) -> str:
    shown = _writer(extra)
    least, most, unit = (extra.get(limit) for limit in ("least", "most", "unit"))
    what = f"a multiple of {shown(unit)}" if unit else "a size" if extra.get("form") == "size" else "a number"
    return f"{what} from {shown(least)} to {shown(most)}"


def _writer(extra: dict[str, Any]) -> Any:
    return {"size": format_size, "hex": hex}.get(extra.get("form", ""), str)


def faults(value: Any, kind: inspect.Type, path: Path = ()) -> Iterator[Fault]:
    """Everything in `value` that is outside its key's limits."""
    if value is None and optional(kind):
        return
    inner, extra = bare(kind)
    if possible := structs(inner):
        for one in possible:
            if isinstance(value, one.cls):
                for field in one.fields:
                    yield from faults(getattr(value, field.name), field.type, (*path, field.encode_name))
                return
        known = " or a ".join(one.cls.__name__ for one in possible)
        yield Fault(path, f"{shorten(str(value))} is not a {known}")
    elif isinstance(inner, inspect.DictType):
        if not isinstance(value, dict):
            yield Fault(path, f"{shorten(str(value))} is not a dict")
            return
        yield from _count(len(value), extra, path)
        for key, one in value.items():
            yield from faults(key, inner.key_type, (*path, key))
            yield from faults(one, inner.value_type, (*path, key))
    elif isinstance(inner, inspect.ListType):
        if not isinstance(value, list | tuple):
            yield Fault(path, f"{shorten(str(value))} is not a list")
            return
        yield from _count(len(value), extra, path)
        for at, one in enumerate(value):
            yield from faults(one, inner.item_type, (*path, at))
    elif is_number(inner):
        yield from _bounds(value, inner, extra, path)
    elif isinstance(inner, inspect.LiteralType):
        if value not in inner.values:
            yield Fault(path, f"{shorten(str(value))} is not {allowed(kind)}{closest(value, inner.values)}")
    elif isinstance(inner, inspect.BoolType):
        if not isinstance(value, bool):
            yield Fault(path, f"{shorten(str(value))} is not {allowed(kind)}")
    elif not isinstance(value, str) or not re.fullmatch(extra.get("pattern", "(?s:.+)"), value):
        yield Fault(path, f"{shorten(str(value))} is not {allowed(kind)}")


def _count(count: int, extra: dict[str, Any], path: Path) -> Iterator[Fault]:
    if not extra.get("least", 0) <= count <= extra.get("most", count):
        yield Fault(path, f"has {count} entries; allowed are {_many(extra)}")


def _bounds(value: Any, kind: inspect.Type, extra: dict[str, Any], path: Path) -> Iterator[Fault]:
    if not isinstance(value, int) or isinstance(value, bool):
        yield Fault(path, f"{shorten(str(value))} is not a whole number")
        return
    shown = _writer(extra)
    if isinstance(kind, inspect.LiteralType):
        if value not in kind.values:
            yield Fault(path, f"{shown(value)} is not {_one_of(kind, extra)}")
        return
    least, most, unit = extra.get("least", value), extra.get("most", value), extra.get("unit", 1)
    if not least <= value <= most:
        yield Fault(path, f"{shown(value)} is not {_number(extra)}")
    elif value % unit:
        yield Fault(path, f"{shown(value)} is not a multiple of {shown(unit)}")
