"""Every key of a topology file, from the structs that read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from reference.text import docstring, table
from softcxl.fabric import limits
from softcxl.fabric.keys import Topology
from softcxl.wire.sizes import format_size


def page() -> str:
    parts = [
        "# Topology keys",
        "Sizes are written like `256MiB`, `1GiB`, `0x10000000`, or as a number of bytes.",
    ]
    for place, struct in structs():
        parts.append(f"## {place}\n\n{docstring(struct.cls)}\n")
        rows = [tag(struct)] if struct.tag_field else []
        rows += [row(field) for field in struct.fields]
        parts.append(table(("Key", "Meaning", "Allowed", "Without it"), rows))
    return "\n\n".join(parts)


def row(field: inspect.Field) -> tuple[str, str, str, str]:
    """A key: its name, what it means, what is allowed, and what holds without it."""
    return f"`{field.encode_name}`", _doc(field.type), _allowed(field), _default(field)


def tag(struct: inspect.StructType) -> tuple[str, str, str, str]:
    """The key that says which kind of mapping this is."""
    first = "this kind" if struct.tag == "type3" else "another kind"
    return f"`{struct.tag_field}`", "what kind it is", f"`{struct.tag}`", first


def structs() -> Iterator[tuple[str, inspect.StructType]]:
    """Every kind of mapping in a topology, with its place: `devices.NAME`, `hosts.NAME.windows[]`."""
    root = inspect.type_info(Topology)
    assert isinstance(root, inspect.StructType)
    yield "The file", root
    yield from _below(root, "")


def _below(struct: inspect.StructType, lead: str) -> Iterator[tuple[str, inspect.StructType]]:
    for field in struct.fields:
        kind, _ = limits.bare(field.type)
        path = f"{lead}{field.encode_name}"
        if isinstance(kind, inspect.DictType):
            inner, path = limits.bare(kind.value_type)[0], f"{path}.NAME"
        elif isinstance(kind, inspect.ListType):
            inner, path = limits.bare(kind.item_type)[0], f"{path}[]"
        else:
            inner = kind
        for one in limits.structs(inner):
            here = f"{path} (type: {one.tag})" if one.tag and one.tag != "type3" else path
            yield here, one
            yield from _below(one, f"{here}.")


def _doc(kind: inspect.Type) -> str:
    return (
        str((kind.extra_json_schema or {}).get("description", ""))
        if isinstance(kind, inspect.Metadata)
        else ""
    )


def _allowed(field: inspect.Field) -> str:
    text = limits.allowed(field.type)
    kind, _ = limits.bare(field.type)
    if isinstance(kind, inspect.ListType):
        item, _ = limits.bare(kind.item_type)
        if not isinstance(item, inspect.StructType) or getattr(item.cls, "shorthand", None):
            return f"{text}, each {limits.allowed(kind.item_type)}" + (
                " or null" if limits.optional(kind.item_type) else ""
            )
    return text


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        made: Any = field.default_factory()
        return f"`{made}`".replace("'", "") if made else "none"
    if field.default is None:
        return "as said"
    _, extra = limits.bare(field.type)
    return format_size(field.default) if extra.get("form") == "size" else f"`{field.default}`"
