"""The scenarios of examples/ beside a guest, by `softcxl vm run --scenario`: what Linux makes of each fault."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from softcxl.cli import main
from softcxl.lab.parts import Parts
from tests.kernel.conftest import EXAMPLES

ONE = str(EXAMPLES / "one-device.yaml")
SCENARIOS = [
    path
    for path in sorted((EXAMPLES / "scenarios").glob("*.yaml"))
    if "with a guest" in re.sub(r"without a guest.*", "", path.read_text().partition("\n")[0])
]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_expectation_is_met(parts: Parts, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["vm", "run", "-q", "--json", "--scenario", str(path), ONE])
    answer = json.loads(capsys.readouterr().out)["scenario"]
    assert status == 0, answer
    assert answer["passed"]
    assert {one["result"] for one in answer["steps"]} == {"done", "met"}


def test_a_command_goes_first_and_both_decide_the_status(
    parts: Parts, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(
        """
steps:
  - on: command 4200h
    poison: {address: 0x40}
  - expect: {guest: {run: cat /tmp/first, output: '^done$'}}
  - expect: {poison: {lines: 1}}
  - expect: {guest: {run: 'exit 3', status: 3}}
  - expect: {poison: {lines: 7}}
"""
    )
    assert (
        main(
            ["vm", "run", "-q", "--scenario", str(path), ONE, "--", "cxl list -M -H; echo done > /tmp/first"]
        )
        == 1
    )
    shown = capfd.readouterr()
    assert '"temperature":25' in shown.out
    results = re.findall(r"^ +[\d.]+ s  (done|met|not met|waiting)", shown.err, re.MULTILINE)
    assert results == ["done", "met", "met", "met", "not met"]
    assert shown.err.splitlines()[-1] == "scenario not passed: 1 of 5 steps, 3 expectations met"
