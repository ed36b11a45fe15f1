"""`softcxl inject`: its report and its exit status."""

import json
from pathlib import Path

import pytest

from softcxl.cli import main
from softcxl.cli.verbs import VERBS
from softcxl.fabric.build import Fabric
from softcxl.fabric.control import Service
from softcxl.fabric.hosts import Hosts
from softcxl.transport.control import Door

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


@pytest.fixture
def live(tmp_path):
    """The address of a server, and its fabric."""
    with Fabric.load(ONE) as fabric:
        hosts = Hosts(fabric, ONE, tmp_path)
        with Door(Service(hosts, VERBS), tmp_path / "control") as door:
            yield f"unix:{door.path}", fabric


def test_at_a_server_it_is_played_over_what_is_live_there(live, scenario, capsys):
    address, fabric = live
    path = scenario("steps: [{poison: {address: 0x40}}, {expect: {poison: {lines: 1}}}]")
    assert main(["inject", address, path]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "scenario passed, 1 expectations met"
    assert 0x40 in fabric.devices["mem0"].poison.map
    assert main(["inject", address, scenario("steps: [{expect: {poison: {lines: 3}}}]"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_at_a_server_a_wrong_file_is_2_with_its_place(live, scenario, capsys):
    address, _ = live
    path = scenario("steps:\n- link: sideways\n")
    assert main(["inject", address, path]) == 2
    assert capsys.readouterr().err.startswith(f"{path}:2:9: steps[0].link: 'sideways' is not one of down, up")
    assert main(["inject", address, "nowhere.yaml"]) == 2
    assert "nowhere.yaml: cannot be read" in capsys.readouterr().err
    assert main(["inject", address, path, "--host", "alpha"]) == 2
    assert "at a server a scenario boots none" in capsys.readouterr().err
