"""Which of the standard's commands there are: named, declared, handled by a device, and named in its tests.

Everything is derived: names and declarations from `softcxl.spec.command.registry`, handlers from the commands
that a device really has, tests from the files that use a command's declaration by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softcxl.device.cci import CommandSet
from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.type3 import Type3
from softcxl.spec.command import registry
from softcxl.spec.command.base import Command
from softcxl.spec.command.memory import CAPACITY_UNIT


@dataclass(frozen=True, slots=True)
class Row:
    """One command of the standard. `clause` is empty where it is not declared, `handler` (`Class.method`) where
    a Type 3 device answers Unsupported; `tests` are the files that use its declaration."""

    opcode: int
    name: str
    clause: str
    handler: str
    tests: tuple[str, ...] = ()


def rows(tests: Path | None = None) -> list[Row]:
    """A row for each command of the standard, by opcode. `tests` is the folder to look for tests in."""
    device = Type3(
        "mem0",
        volatile=CAPACITY_UNIT,
        partition_alignment=CAPACITY_UNIT,
        dynamic=[DynamicRegion(length=CAPACITY_UNIT)],
        clock=ManualClock(),
    )
    try:
        handlers = {opcode: _name(handler) for opcode, (_, handler) in device.cci.handlers.items()}
    finally:
        device.close()
    named = uses(tests) if tests else {}
    return [
        Row(opcode, name, _clause(opcode), handlers.get(opcode, ""), named.get(opcode, ()))
        for opcode, name in sorted(registry.NAMES.items())
    ]


def uses(folder: Path) -> Mapping[int, tuple[str, ...]]:
    """The test files below `folder` that use each declared command by the name of its constant, by opcode."""
    constants = dict(_constants())
    found: dict[int, list[str]] = {}
    for file in sorted(folder.rglob("test_*.py")):
        for word in sorted(set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", file.read_text("utf-8")))):
            if word in constants:
                found.setdefault(constants[word], []).append(str(file.relative_to(folder)))
    return {opcode: tuple(files) for opcode, files in found.items()}


def _constants() -> Iterator[tuple[str, int]]:
    """The constants that hold declarations, as their modules name them, with their opcodes."""
    for command in registry.COMMANDS.values():
        yield re.sub(r"[^A-Z0-9]+", "_", command.name.upper()), command.opcode


def _clause(opcode: int) -> str:
    declared: Command | None = registry.COMMANDS.get(opcode)
    return declared.spec if declared else ""


def _name(handler: Callable[..., Any]) -> str:
    """The class that defines the bound method `handler`, and its name."""
    owner: CommandSet = handler.__self__  # type: ignore[attr-defined]
    defined = next(base for base in type(owner).__mro__ if handler.__name__ in vars(base))
    return f"{defined.__name__}.{handler.__name__}"
