"""Every scenario of examples/ passes in process over the topology that its first line names.

Of those for a guest alone, which tests/kernel/test_scenarios.py plays, nothing but the form is looked at."""

import re
from pathlib import Path

import pytest

from softcxl.device.clock import ManualClock
from softcxl.fabric.build import Fabric
from softcxl.fabric.play import play
from softcxl.fabric.scenario import load

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted((EXAMPLES / "scenarios").glob("*.yaml")), ids=lambda path: path.stem)
def test_it_passes(path):
    named = re.search(r"For examples/([\w-]+\.yaml)", path.read_text())
    assert named, "it says what it is for"
    clock = ManualClock()
    with Fabric.load(EXAMPLES / named[1], clock=clock) as fabric:
        scenario = load(path, fabric.topology)
        if "with a guest only" in path.read_text():
            return
        report = play(fabric, scenario, clock)
    assert report.passed, report
    assert all(one.result != "waiting" for one in report.outcomes)
    assert sum(one.result == "met" for one in report.outcomes) >= 1
