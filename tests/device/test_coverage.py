"""The table of commands: derived, and honest about gaps."""

from pathlib import Path

from softcxl.device import coverage
from softcxl.spec.command import registry

TESTS = Path(__file__).parents[1]


def test_rows():
    rows = {row.opcode: row for row in coverage.rows(TESTS)}
    assert list(rows) == sorted(registry.NAMES)
    identify = rows[0x4000]
    assert (identify.name, identify.clause) == ("Identify Memory Device", "CXL 3.1 §8.2.9.9.1.1")
    assert identify.handler == "CapacityCommands.identify"
    assert "device/test_commands.py" in identify.tests
    assert rows[0x5100].clause == "CXL 3.1 §7.6.7.1.1"
    assert rows[0x5100].handler == ""
    assert rows[0x5700].clause == rows[0x5700].handler == ""


def test_constants_are_named_after_commands():
    """What `uses` looks for is what the modules of softcxl.spec.command and softcxl.spec.fm really define."""
    from importlib import import_module
    from pkgutil import iter_modules

    found = dict(coverage._constants())
    defined = {}
    for package in ("softcxl.spec.command", "softcxl.spec.fm"):
        for module in iter_modules(import_module(package).__path__, f"{package}."):
            for name, value in vars(import_module(module.name)).items():
                if type(value).__name__ == "Command":
                    defined[name] = value.opcode
    assert defined == found


def test_every_handled_command_is_tested():
    untested = [row.name for row in coverage.rows(TESTS) if row.handler and not row.tests]
    assert untested == []


def test_without_tests_nothing_is_tested():
    assert not any(row.tests for row in coverage.rows())
