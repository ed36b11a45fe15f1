"""Strict YAML: a document read into msgspec structs, every value with its place, every problem reported.

The struct's annotations guide the walk, so there is no second description of the format. A value that cannot
be read is replaced by a stand-in and its path noted in `broken`: the walk goes on, and later checks keep
silent about what depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
import yaml
from msgspec import inspect

from softcxl.fabric.errors import Problem
from softcxl.fabric.limits import (
    Fault,
    Path,
    allowed,
    bare,
    closest,
    is_number,
    names,
    optional,
    spell,
    structs,
)
from softcxl.wire.sizes import parse_number, parse_size, shorten

Mark = tuple[int, int]
T = TypeVar("T", bound=msgspec.Struct)

#: A topology of the largest legal fabric is well under this.
MAX_BYTES = 1 << 18
#: Aliases let a small file stand for a huge one.
MAX_VALUES = 100_000
MAX_MERGES = 8
# What plain YAML makes of words and numbers; their meaning here comes from the key.
_TAGS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "value")
}

_TRUTHS = {"true": True, "false": False}


class Reader:
    """Reads one document, and fills `problems`, `marks` (line and column, from 1) and `broken` on the way.

    `what` it is (a topology) is for messages, and so is the key that it `needs`."""

    def __init__(self, file: str, what: str = "topology", needs: str = "devices") -> None:
        self.file, self._what, self._needs = file, what, needs
        self.problems: list[Problem] = []
        self.marks: dict[Path, Mark] = {}
        self.broken: set[Path] = set()
        self._left = MAX_VALUES

    def report(
        self, path: Path, message: str, mark: Mark | None = None, broken: Sequence[Path] | None = None
    ) -> None:
        """A problem at `mark`, or at the nearest place known for `path`; `path` then counts as broken."""
        line, column = mark or self.place(path)
        self.problems.append(Problem(self.file, line, column, spell(path), message))
        self.broken.update([path] if broken is None else broken)

    def judge(self, faults: Iterable[Fault]) -> None:
        """Report `faults`, without those that rest on something reported before."""
        for fault in [one for one in faults if not any(map(one.rests_on, self.broken))]:
            self.report(fault.path, fault.message)

    def place(self, path: Path) -> Mark:
        """Line and column of `path`, or of the nearest thing around it; (0, 0) where there is no file."""
        while path not in self.marks and path:
            path = path[:-1]
        return self.marks.get(path, (0, 0))

    def read(self, text: str | bytes, struct: type[T]) -> T | None:
        """`text` as a `struct`; None where the text is not YAML at all. Look at `problems` in either case."""
        node = self._compose(text)
        if node is None:
            return None
        self.marks[()] = _mark(node)
        value: T | None = self._value(node, inspect.type_info(struct), ())
        return value

    def _compose(self, text: str | bytes) -> yaml.Node | None:
        if len(text) > MAX_BYTES:
            self.report((), f"has {len(text)} bytes; a {self._what} has at most {MAX_BYTES}")
            return None
        try:
            if isinstance(text, bytes):
                text = text.decode("utf-8-sig")
            node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            self.report((), f"byte {error.object[error.start]:#04x} is not UTF-8 text", (line, 1))
        except yaml.MarkedYAMLError as error:
            self._not_yaml(error)
        except yaml.reader.ReaderError as error:
            before = text[: error.position] if isinstance(text, str) else ""
            mark = (before.count("\n") + 1, len(before) - before.rfind("\n"))
            self.report((), f"character U+{error.character:04X} is not allowed in YAML", mark)
        except RecursionError:
            self.report((), f"is nested too deeply; a {self._what} has at most 8 levels")
        except (ValueError, OverflowError) as error:
            # PyYAML lets a few of Python's own errors through, an escape out of Unicode's range for one.
            self.report((), f"is not YAML: {error}")
        else:
            if node is None:
                self.report((), f"is empty; it needs at least `{self._needs}:`", (1, 1))
            return node
        return None

    def _not_yaml(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "it cannot be read"
        if "'\\t'" in what:
            what = "a tab stands where only spaces may indent"
        elif "expected a single document" in (error.context or ""):
            what = f"a second document starts here; a {self._what} is one document"
        context = f" ({error.context})" if error.context and error.context != what else ""
        self.report((), f"is not YAML: {what}{context}", (mark.line + 1, mark.column + 1) if mark else (1, 1))

    def _value(self, node: yaml.Node, kind: inspect.Type, path: Path) -> Any:
        self.marks.setdefault(path, _mark(node))
        self._left -= 1
        if self._left == 0:
            self.report((), f"stands for more than {MAX_VALUES} values; use fewer aliases")
        if self._left <= 0:
            return stand_in(kind)
        if node.tag not in _TAGS:
            self.report(path, f"has the tag {shorten(node.tag)}; a {self._what} uses no tags", _mark(node))
            return stand_in(kind)
        if optional(kind) and _is_null(node):
            return None
        inner, _ = bare(kind)
        if possible := structs(inner):
            chosen = possible[0] if len(possible) == 1 else self._chosen(node, possible, path)
            return self._struct(node, chosen, path)
        if isinstance(inner, inspect.DictType):
            return self._dict(node, inner, path)
        if isinstance(inner, inspect.ListType):
            return self._list(node, inner, path)
        return self._scalar(node, kind, path)

    def _chosen(
        self, node: yaml.Node, possible: Sequence[inspect.StructType], path: Path
    ) -> inspect.StructType:
        """The kind of mapping that its tag says, the first one where it says none."""
        tag = str(possible[0].tag_field)
        quiet = Reader(self.file)  # who reads the mapping complains of it
        _, given = quiet._pairs(node, path, "").get(tag, (None, None))
        if given is None:
            return possible[0]
        here, said = (*path, tag), given.value if isinstance(given, yaml.ScalarNode) else _what(given)
        self.marks[here] = _mark(given)
        for one in possible:
            if one.tag == said:
                return one
        tags = [one.tag for one in possible]
        self.report(here, f"{shorten(said)} is not one of {', '.join(map(str, tags))}{closest(said, tags)}")
        self.broken.add(path)  # what its other keys may be hangs on this one
        return possible[0]

    def _struct(self, node: yaml.Node, kind: inspect.StructType, path: Path) -> Any:
        short = getattr(kind.cls, "shorthand", None)
        if short and isinstance(node, yaml.ScalarNode):
            field = next(one for one in kind.fields if one.name == short)
            return kind.cls(**{short: self._scalar(node, field.type, path)})
        fields = {field.encode_name: field for field in kind.fields}
        pairs = self._pairs(node, path, f"the keys {', '.join(names(kind))}")
        pairs.pop(kind.tag_field or "", None)
        if path in self.broken:
            return stand_in(kind)
        values: dict[str, Any] = {}
        for key, (key_mark, value) in pairs.items():
            if key in fields:
                values[fields[key].name] = self._value(value, fields[key].type, (*path, key))
                continue
            guess = closest(key, fields)
            hint = guess or f"; keys here are {', '.join(names(kind))}"
            # What was meant is as good as broken: nobody should be told that it is absent, too.
            meant = [(*path, name) for name in fields if guess and f"'{name}'" in guess]
            self.report(path, f"unknown key {shorten(key)}{hint}", key_mark, broken=meant)
        for key, field in fields.items():
            if not field.required or field.name in values:
                continue
            values[field.name] = stand_in(field.type)
            if path not in self.broken and (*path, key) not in self.broken:
                self.report((*path, key), f"is missing; it is {allowed(field.type)}")
        return kind.cls(**values)

    def _dict(self, node: yaml.Node, kind: inspect.DictType, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, (key_mark, value) in self._pairs(node, path, "names").items():
            self.marks[(*path, key)] = key_mark
            found[key] = self._value(value, kind.value_type, (*path, key))
        return found

    def _list(self, node: yaml.Node, kind: inspect.ListType, path: Path) -> list[Any]:
        if not isinstance(node, yaml.SequenceNode):
            self.report(path, f"must be a list like [a, b], not {_what(node)}", _mark(node))
            return []
        return [self._value(one, kind.item_type, (*path, at)) for at, one in enumerate(node.value)]

    def _scalar(self, node: yaml.Node, kind: inspect.Type, path: Path) -> Any:
        inner, extra = bare(kind)
        if not isinstance(node, yaml.ScalarNode) or _is_null(node):
            self.report(path, f"must be {allowed(kind)}, not {_what(node)}", _mark(node))
            return stand_in(kind)
        text: str = node.value
        if isinstance(inner, inspect.BoolType) and text in _TRUTHS:
            return _TRUTHS[text]
        if not is_number(inner):
            return text
        try:
            return parse_size(text) if extra.get("form") == "size" else parse_number(text)
        except ValueError as error:
            self.report(path, str(error), _mark(node))
            return stand_in(kind)

    def _pairs(
        self, node: yaml.Node, path: Path, of: str, depth: int = 0
    ) -> dict[str, tuple[Mark, yaml.Node]]:
        """A mapping's keys in their order, those that `<<` merges in after its own; empty if it is none."""
        if not isinstance(node, yaml.MappingNode):
            self.report(path, f"must be a mapping with {of}, not {_what(node)}", _mark(node))
            return {}
        own: dict[str, tuple[Mark, yaml.Node]] = {}
        merged: dict[str, tuple[Mark, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.report(path, f"a key must be a word, not {_what(key)}", _mark(key))
            elif key.tag == "tag:yaml.org,2002:merge":
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    # An anchor may stand inside what it names: `a: &a {<<: *a}`.
                    if depth == MAX_MERGES:
                        self.report(path, "`<<` goes round in a circle, or too deep", _mark(key))
                        break
                    for name, pair in self._pairs(source, path, of, depth + 1).items():
                        merged.setdefault(name, pair)
            elif key.value in own:
                first = own[key.value][0][0]
                message = f"key {shorten(key.value)} is given twice, first in line {first}"
                self.report(path, message, _mark(key), broken=[(*path, key.value)])
            else:
                own[key.value] = (_mark(key), value)
        return own | {name: pair for name, pair in merged.items() if name not in own}


def stand_in(kind: inspect.Type) -> Any:
    """Some value of the right Python type, for one that could not be read."""
    if optional(kind):
        return None
    inner, _ = bare(kind)
    if isinstance(inner, inspect.UnionType):
        inner = structs(inner)[0]
    if isinstance(inner, inspect.StructType):
        required = [field for field in inner.fields if field.required]
        return inner.cls(**{field.name: stand_in(field.type) for field in required})
    if isinstance(inner, inspect.LiteralType):
        return inner.values[0]
    empty: dict[type[inspect.Type], Any] = {
        inspect.IntType: 0,
        inspect.BoolType: False,
        inspect.DictType: {},
        inspect.ListType: [],
    }
    return empty.get(type(inner), "")


def _mark(node: yaml.Node) -> Mark:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _is_null(node: yaml.Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def _what(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "nothing" if _is_null(node) else shorten(node.value)
