"""Every command that the standard names: declared, handled by a device, named in a test.

All three columns are derived: the names and declarations from softcxl.spec.command.registry, the handlers from the
command sets of softcxl.device, the tests from the files that use a command's declaration.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import softcxl.device
from reference.text import table
from softcxl.device.cci import CommandSet
from softcxl.spec.command import registry

TESTS = Path(__file__).parents[3] / "tests"


def page() -> str:
    handled, tests = handlers(), tested()
    rows = []
    for opcode, name in registry.NAMES.items():
        declared = registry.COMMANDS.get(opcode)
        rows.append(
            (
                f"{opcode:04X}h",
                name,
                declared.spec if declared else "",
                ", ".join(f"`{one}`" for one in handled.get(opcode, [])),
                ", ".join(f"`{one}`" for one in tests.get(opcode, [])),
            )
        )
    counts = (
        f"{len(registry.NAMES)} in the standard, {len(registry.COMMANDS)} declared, {len(handled)} handled"
    )
    head = ("Opcode", "Command", "Declared from", "Handled by", "Tested in")
    intro = f"{counts}. An empty cell is a gap: the command is answered with Unsupported."
    return f"# Commands\n\n{intro}\n\n{table(head, rows)}"


def handlers() -> dict[int, list[str]]:
    """The methods that handle each opcode, as `Class.method`."""
    for found in pkgutil.walk_packages(softcxl.device.__path__, "softcxl.device."):
        importlib.import_module(found.name)
    result: dict[int, list[str]] = {}
    for kind in _subclasses(CommandSet):
        for name, value in vars(kind).items():
            declared = getattr(value, "__command__", None)
            if declared is not None and kind.__module__.startswith("softcxl."):
                result.setdefault(declared.opcode, []).append(f"{kind.__name__}.{name}")
    return result


def _subclasses(kind: type) -> list[type]:
    return [one for direct in kind.__subclasses__() for one in (direct, *_subclasses(direct))]


def tested() -> dict[int, list[str]]:
    """The test files that use each declared command by the name of its declaration."""
    names: dict[str, int] = {}
    for opcode, declared in registry.COMMANDS.items():
        names[re.sub(r"[^A-Z0-9]+", "_", declared.name.upper())] = opcode
    result: dict[int, list[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        words = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", file.read_text()))
        for name in words & names.keys():
            result.setdefault(names[name], []).append(str(file.relative_to(TESTS)))
    return result
