"""`softcxl inject`: its report and its exit status."""

import json
from pathlib import Path

import pytest

from softcxl.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"
ONE = str(EXAMPLES / "one-device.yaml")


@pytest.fixture
def scenario(tmp_path):
    def write(text):
        path = tmp_path / "scenario.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_met_is_0_with_a_line_a_step(scenario, capsys):
    path = scenario("steps: [{after: 1s, poison: {address: 0x40}}, {expect: {poison: {lines: 1}}}]")
    assert main(["inject", ONE, path]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "    1.000 s  done     mem0: poison address 0x40, length 64: 1 lines",
        "    1.000 s  met      mem0: expect poison lines 1, address 0x0: 1 lines",
        "scenario passed, 1 expectations met",
    ]


def test_not_met_is_1(scenario, capsys):
    assert main(["inject", ONE, scenario("steps: [{expect: {poison: {lines: 1}}}]"), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["passed"] is False
    assert [one["result"] for one in answer["steps"]] == ["not met"]
    assert main(["inject", ONE, scenario("steps: [{expect: {poison: {lines: 1}}}]")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "scenario not passed: 1 of 1 steps, 0 expectations met"


def test_a_wrong_file_is_2_with_its_place(scenario, capsys):
    path = scenario("steps:\n- link: sideways\n")
    assert main(["inject", ONE, path]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"{path}:2:9: steps[0].link: 'sideways' is not one of down, up")
    assert main(["inject", ONE, "nowhere.yaml"]) == 2
    assert "nowhere.yaml: cannot be read" in capsys.readouterr().err


def test_a_host_that_there_is_not_is_2(scenario, capsys):
    assert main(["inject", ONE, scenario("steps: [{link: up}]"), "--host", "beta"]) == 2
    assert "'beta' is no host" in capsys.readouterr().err
