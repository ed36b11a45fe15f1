"""Every key of a scenario file, from the structs that read it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import inspect

from reference.text import docstring, table
from reference.topology import row
from softcxl.fabric import limits
from softcxl.fabric.scenario_keys import Scenario


def page() -> str:
    parts = [
        "# Scenario keys",
        "[How to break things on purpose](../../howto/break-things.md) explains them. Addresses are as in a topology.",
    ]
    for place, struct in structs():
        rows = [row(field) for field in struct.fields]
        parts.append(f"## {place}\n\n{docstring(struct.cls)}\n")
        parts.append(table(("Key", "Meaning", "Allowed", "Without it"), rows))
    return "\n\n".join(parts)


def structs() -> Iterator[tuple[str, inspect.StructType]]:
    """Every kind of mapping in a scenario once, with its place: `steps[].fault`."""
    root = inspect.type_info(Scenario)
    assert isinstance(root, inspect.StructType)
    yield "The file", root
    yield from _below(root, "", {Scenario})


def _below(
    struct: inspect.StructType, lead: str, seen: set[type]
) -> Iterator[tuple[str, inspect.StructType]]:
    for field in struct.fields:
        kind, _ = limits.bare(field.type)
        path = f"{lead}{field.encode_name}"
        if isinstance(kind, inspect.ListType):
            kind, path = limits.bare(kind.item_type)[0], f"{path}[]"
        if isinstance(kind, inspect.StructType) and kind.cls not in seen:
            seen.add(kind.cls)
            yield path, kind
            yield from _below(kind, f"{path}.", seen)
