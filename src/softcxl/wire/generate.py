"""Writes a record's `__init__`, `pack`, `unpack` and `_parse` from its items, as plain Python text.

Neighbours of fixed size, those of nested records included, share one `struct.Struct`: a record of fixed size
packs and unpacks in a single call. A value that struct makes as it is goes straight to its attribute; the
others pass through a local `_vN` first.
"""

from __future__ import annotations

import copy
import operator
import struct
from dataclasses import dataclass
from typing import Any

from softcxl.wire import codec
from softcxl.wire.item import MISSING, Item

_WORDS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_U24 = "HB"  # low half, then what is above it: struct checks the range, and no bytes are made in between


@dataclass(slots=True)
class _Leaf:
    """An item that struct packs, where its value is kept (`self.total`, `_n1.total`), its name for errors."""

    item: Item
    target: str
    where: str


@dataclass(slots=True)
class _Run:
    """Neighbouring leaves, and the nested records they belong to: (local name, where it is kept, class)."""

    leaves: list[_Leaf]
    opened: list[tuple[str, str, str]]


class _Writer:
    """The text of one record's methods; `space` holds the objects that it names."""

    def __init__(self, name: str, items: list[Item]) -> None:
        self.name, self.items = name, items
        self.serial = 0
        self.space: dict[str, Any] = {
            "_new": object.__new__, "_copy": copy.deepcopy, "_index": operator.index, "_len": len,
            "_list": list, "_bytes": bytes, "_error": struct.error,
            "_text": codec.text, "_uuid_of": codec.uuid_of, "_guid_of": codec.guid_of, "_fit": codec.fit,
            "_ascii": codec.ascii_of, "_small": codec.small, "_length": codec.length, "_many": codec.many,
            "_packed": codec.packed, "_out_of_range": codec.out_of_range, "_wrong_size": codec.wrong_size,
        }  # fmt: skip
        self.parts = self._split()

    def bind(self, stem: str, value: Any) -> str:
        """A name no item has (items do not begin with an underscore) for `value`."""
        self.serial += 1
        name = f"_{stem}{self.serial}"
        self.space[name] = value
        return name

    def _split(self) -> list[_Run | Item]:
        """Items in order: neighbours of fixed size as runs, each of varying size alone."""
        parts: list[_Run | Item] = []
        run: _Run | None = None
        for item in self.items:
            if item.size is None:
                parts.append(item)
                run = None
                continue
            if run is None:
                parts.append(run := _Run([], []))
            self._flatten(run, item, "self", self.name)
        return parts

    def _flatten(self, run: _Run, item: Item, owner: str, where: str) -> None:
        target, where = f"{owner}.{item.name}", f"{where}.{item.name}"
        if item.kind != "nested":
            run.leaves.append(_Leaf(item, target, where))
            return
        local = f"_n{len(run.opened)}_{item.name}"
        run.opened.append((local, target, self.bind("of", item.of)))
        for inner in item.of.__layout__.fields:
            self._flatten(run, inner, local, where)

    # -- __init__ --------------------------------------------------------------------------------------------

    def init(self) -> list[str]:
        arguments, lines = [], []
        for item in self.items:
            key = item.name
            if item.kind == "reserved":
                continue
            argument, value = f"{key}=None", key
            if item.kind == "word":
                of = self.bind("of", item.of)
                value = f"{of}({int(item.default)}) if {key} is None else {of}(_index({key}))"
            elif item.kind == "nested":
                made = f"{self.bind('of', item.of)}()"
                if item.default is not MISSING:
                    made = f"_copy({self.bind('default', item.default)})"
                value = f"{made} if {key} is None else {key}"
            elif item.kind in ("counted", "tail"):
                empty, kind = ("b''", "_bytes") if item.of is None else ("[]", "_list")
                value = f"{empty} if {key} is None else {kind}({key})"
            else:
                argument = key if item.default is MISSING else f"{key}={self.bind('default', item.default)}"
            arguments.append(argument)
            lines.append(f"    self.{key} = {value}")
        lists = [item for item in self.items if item.kind == "counted"]
        lines += [f"    self.{item.count} = _len(self.{item.name})" for item in lists]
        star = ["*", *arguments] if arguments else []
        return [f"def __init__({', '.join(['self', *star])}):", *(lines or ["    pass"])]

    # -- pack ------------------------------------------------------------------------------------------------

    def pack(self) -> list[str]:
        opened, parts = [], []
        for part in self.parts:
            if isinstance(part, _Run):
                opened += [f"        {local} = {target}" for local, target, _ in part.opened]
                codes = "".join(_pack_code(leaf.item) for leaf in part.leaves)
                values = [self._to_struct(leaf) for leaf in part.leaves if leaf.item.kind != "reserved"]
                parts.append(f"{self.bind('pack', struct.Struct('<' + codes).pack)}({', '.join(values)})")
            elif part.kind == "nested":
                parts.append(f"self.{part.name}.pack()")
            elif part.of is None:
                parts.append(f"bytes(self.{part.name})")
            else:
                of = self.bind("of", part.of)
                parts.append(f"_packed({of}, self.{part.name}, {f'{self.name}.{part.name}'!r})")
        return [
            "def pack(self):",
            "    try:",
            *opened,
            f"        return {' + '.join(parts) or repr(b'')}",
            "    except _error:",
            f"        raise _out_of_range(self, {self.name!r}) from None",
        ]

    def _to_struct(self, leaf: _Leaf) -> str:
        item, value, where = leaf.item, leaf.target, repr(leaf.where)
        lists = [f"len(self.{one.name})" for one in self.items if one.count == item.name and one.count]
        if lists and value == f"self.{item.name}":
            value = lists[0] if len(lists) == 1 else f"_length({where}, {', '.join(lists)})"
        match item.kind:
            case "u24":
                return f"{value} & 0xFFFF, {value} >> 16"
            case "ascii":
                return f"_ascii({value}, {item.size}, {where})"
            case "raw":
                return f"_fit({value}, {item.size}, {where})"
            case "uuid":
                return f"{value}.bytes_le" if item.little else f"{value}.bytes"
            case "word" if item.size not in _WORDS:
                return f"_small({value}, {item.size}, {where})"
        return value  # an int, or a word: struct asks it for its __index__

    # -- unpack ----------------------------------------------------------------------------------------------

    def unpack(self) -> list[str]:
        """Of a record of fixed size: one struct call, which checks the size as well."""
        (run,) = self.parts or [_Run([], [])]
        assert isinstance(run, _Run)
        opened, targets, codes, after = self._from_struct(run)
        call = f"{self.bind('unpack', struct.Struct(codes).unpack)}(data)"
        return [
            "def unpack(cls, data):",
            "    self = _new(cls)",
            *opened,
            "    try:",
            f"        {targets}{call}",
            "    except _error:",
            "        raise _wrong_size(cls, data) from None",
            *after,
            "    return self",
        ]

    def parse(self) -> list[str]:
        lines = ["def _parse(cls, data, _offset):", "    self = _new(cls)"]
        for part in self.parts:
            where = f"{self.name}.{part.name}" if isinstance(part, Item) else ""
            if isinstance(part, _Run):
                opened, targets, codes, after = self._from_struct(part)
                run = struct.Struct(codes)
                call = f"{self.bind('unpack', run.unpack_from)}(data, _offset)"
                lines += [*opened, f"    {targets}{call}", f"    _offset += {run.size}", *after]
            elif part.kind == "nested":
                of = self.bind("of", part.of)
                lines.append(f"    self.{part.name}, _offset = {of}._parse(data, _offset)")
            elif part.of is None:
                lines += [f"    self.{part.name} = bytes(data[_offset:])", "    _offset = len(data)"]
            else:
                count = f"self.{part.count}" if part.kind == "counted" else "-1"
                call = f"_many({self.bind('of', part.of)}, data, _offset, {count}, {where!r})"
                lines.append(f"    self.{part.name}, _offset = {call}")
        return [*lines, "    return self, _offset"]

    def _from_struct(self, run: _Run) -> tuple[list[str], str, str, list[str]]:
        """Lines that make nested records, what struct's values are assigned to, its format, lines after."""
        opened = [f"    {local} = {target} = _new({of})" for local, target, of in run.opened]
        targets, after = [], []
        for number, leaf in enumerate(run.leaves):
            if leaf.item.kind == "reserved":
                continue
            local = f"_v{number}"
            lines = self._convert(leaf, local)
            targets.append(local if lines else leaf.target)
            if leaf.item.kind == "u24":
                targets.append(f"{local}h")
            after += [f"    {line}" for line in lines]
        codes = "<" + "".join(_U24 if leaf.item.kind == "u24" else leaf.item.code for leaf in run.leaves)
        return opened, f"{', '.join(targets)}, = " if targets else "", codes, after

    def _convert(self, leaf: _Leaf, local: str) -> list[str]:
        item, target, where = leaf.item, leaf.target, repr(leaf.where)
        value = f"{local} | {local}h << 16" if item.kind == "u24" else local
        match item.kind:
            case "ascii":
                return [f"{target} = _text({local}, {where})"]
            case "uuid":
                return [f"{target} = {'_guid_of' if item.little else '_uuid_of'}({local})"]
            case "word":
                of = self.bind("of", item.of)
                return [f"_w = {target} = _new({of})", f"_w._data = bytearray({local})", "_w._at = 0"]
            case "raw":
                return []
        if item.of is not None:
            return [f"{target} = {self.bind('members', codec.Members(item.of, leaf.where))}[{value}]"]
        return [] if value == local else [f"{target} = {value}"]


def _pack_code(item: Item) -> str:
    if item.kind == "u24":
        return _U24
    return _WORDS.get(item.size or 0, item.code) if item.kind == "word" else item.code


def generate(name: str, items: list[Item]) -> tuple[str, dict[str, Any]]:
    """The source of the methods, and the names it defines. `unpack` only for a record of fixed size."""
    writer = _Writer(name, items)
    methods = [writer.init(), writer.pack(), writer.parse()]
    if all(item.size is not None for item in items):
        methods.append(writer.unpack())
    source = "\n\n\n".join("\n".join(lines) for lines in methods) + "\n"
    exec(compile(source, f"<record {name}>", "exec"), writer.space)
    return source, writer.space
