"""Scenario files: what is right is read as it stands, and each mistake is named at its line and column."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcxl.fabric import scenario, topology
from softcxl.fabric.errors import ScenarioError

ONE = topology.loads("devices: {mem0: {volatile: 256MiB}}")
TWO = topology.loads("devices: {mem0: {volatile: 256MiB}, mem1: {volatile: 256MiB}}")


def test_a_step_has_its_device_and_its_defaults():
    one, two = scenario.loads(
        """
device: mem1
steps:
  - {after: 1.5s, poison: {address: 4KiB}}
  - {on: command 4000h, device: mem0, fault: {command: any, effect: delay, for: 250ms, probability: 25%}}
""",
        TWO,
    ).steps
    assert one.poison is not None
    assert (one.device, one.poison.address, one.poison.length) == ("mem1", 4096, 64)
    assert one.after is not None
    assert scenario.seconds(one.after) == 1.5
    assert two.device == "mem0"
    assert two.fault is not None
    assert two.fault.duration is not None
    assert scenario.seconds(two.fault.duration) == 0.25
    assert scenario.chance(two.fault.probability) == 0.25
    assert (scenario.opcode("any"), scenario.opcode("4000h"), scenario.opcode("00fFh")) == (
        None,
        0x4000,
        0xFF,
    )
    assert scenario.chance(None) == 1


WRONG = [
    ("", "1:1: is empty; it needs at least `steps:`"),
    ("steps: []", "1:8: steps: has 0 entries; allowed are 1 to 1000 entries"),
    ("seed: 1", "1:1: steps: is missing; it is a list, 1 to 1000 entries"),
    ("steps: [{}]", "1:9: steps[0]: does nothing; a step does one of poison, spoil,"),
    ("steps: [{poison: {address: 0}, link: up}]", "1:9: steps[0]: does poison and link;"),
    ("steps: [{poision: {address: 0}}]", "1:10: steps[0]: unknown key 'poision'; did you mean 'poison'?"),
    ("steps: [{poison: {address: x}}]", "1:28: steps[0].poison.address: 'x' is not a size;"),
    ("steps: [{poison: {address: 0, length: 0}}]", "1:39: steps[0].poison.length: 0B is not a size from 1B"),
    ("steps: [{poison: {}}]", "1:18: steps[0].poison.address: is missing"),
    ("steps: [{link: sideways}]", "1:16: steps[0].link: 'sideways' is not one of down, up"),
    ("steps: [{link: up, after: soon}]", "1:27: steps[0].after: 'soon' is not a duration like 2s,"),
    ("steps: [{link: up, after: 2}]", "1:27: steps[0].after: '2' is not a duration"),
    ("steps: [{link: up, after: -2s}]", "1:27: steps[0].after: '-2s' is not a duration"),
    (
        "steps: [{link: up, after: 2s, every: 1s}]",
        "1:9: steps[0]: has after and every; a step has at most one",
    ),
    ("steps: [{link: up, every: 0s}]", "1:27: steps[0].every: is no time at all"),
    ("steps: [{link: up, count: 2}]", "1:27: steps[0].count: goes with `every` or `on`"),
    ("steps: [{link: up, every: 1s, count: 0}]", "1:38: steps[0].count: 0 is not a number from 1 to 1000000"),
    ("steps: [{link: up, within: 2s}]", "1:28: steps[0].within: goes with `expect`"),
    ("steps: [{link: up, on: tuesday}]", "1:24: steps[0].on: 'tuesday' is not `command 4000h`,"),
    ("steps: [{link: up, on: command 40}]", "1:24: steps[0].on: 'command 40' is not `command 4000h`"),
    (
        "steps: [{link: up, device: mem9}]",
        "1:28: steps[0].device: 'mem9' is no device of the topology; did you mean",
    ),
    ("device: x\nsteps: [{link: up}]", "1:9: device: 'x' is no device of the topology; there are mem0"),
    ("steps: [{on: command any, run: ls}]", "1:32: steps[0].run: does not go with `every` or `on`"),
    ("before: [{run: ls}]\nsteps: [{link: up}]", "1:16: before[0].run: has no place before the host starts"),
    ("before: [{link: up, after: 1s}]\nsteps: [{link: up}]", "1:28: before[0].after: has no place"),
    ("before: [{expect: {poison: {lines: 0}}}]\nsteps: [{link: up}]", "1:19: before[0].expect: has no place"),
    (
        "steps: [{fault: {command: 4000, effect: hang}}]",
        "1:27: steps[0].fault.command: '4000' is not an opcode as",
    ),
    (
        "steps: [{fault: {command: any, effect: burn}}]",
        "1:40: steps[0].fault.effect: 'burn' is not one of delay, fail,",
    ),
    (
        "steps: [{fault: {command: any, effect: fail}}]",
        "1:17: steps[0].fault.code: is missing; `effect: fail` needs",
    ),
    (
        "steps: [{fault: {command: any, effect: fail, code: internal-eror}}]",
        "1:52: steps[0].fault.code: 'internal-eror' is no return code; did you mean 'internal-error'?",
    ),
    (
        "steps: [{fault: {command: any, effect: hang, for: 1s}}]",
        "1:51: steps[0].fault.for: does not go with `effect: ",
    ),
    ("steps: [{fault: {command: any, effect: delay}}]", "steps[0].fault.for: is missing"),
    (
        "steps: [{fault: {command: any, effect: delay, for: 0s}}]",
        "1:52: steps[0].fault.for: is no time at all",
    ),
    (
        "steps: [{fault: {command: any, effect: lengthen, size: 0}}]",
        "1:56: steps[0].fault.size: 0 bytes more are none",
    ),
    ("steps: [{fault: {command: any, effect: shorten}}]", "steps[0].fault.size: is missing"),
    (
        "steps: [{fault: {command: any, effect: hang, probability: 2}}]",
        "1:59: steps[0].fault.probability: '2' is not a probability over 0 and up to 1",
    ),
    ("steps: [{fault: {command: any, effect: hang, probability: 0%}}]", "steps[0].fault.probability: is 0;"),
    (
        "steps: [{fault: {command: any, effect: hang, times: 0}}]",
        "1:53: steps[0].fault.times: 0 is not a number from 1",
    ),
    (
        "steps: [{event: {type: flood}}]",
        "1:24: steps[0].event.type: 'flood' is not one of dram, dynamic-capacity,",
    ),
    (
        "steps: [{event: {type: dram, log: loud}}]",
        "1:35: steps[0].event.log: 'loud' is not one of dynamic_capacity,",
    ),
    (
        "steps: [{event: {type: dram, fields: {raw: 1}}}]",
        "1:39: steps[0].event.fields.raw: a dram event has no 'raw';",
    ),
    (
        "steps: [{event: {type: dram, fields: {row: big}}}]",
        "steps[0].event.fields.row: 'big' is not a whole number",
    ),
    ("steps: [{event: {type: dram, fields: {row: 0x1000000}}}]", "steps[0].event.fields.row: dram event:"),
    ("steps: [{event: {type: vendor, fields: {data: xyz}}}]", "steps[0].event.fields.data: "),
    ("steps: [{event: {type: vendor, fields: {identifier: me}}}]", "steps[0].event.fields.identifier: "),
    ("steps: [{health: {heat: 1}}]", "steps[0].health.heat: 'heat' is no item of the health;"),
    ("steps: [{health: {life_used: 300}}]", "steps[0].health.life_used: '300' does not fit:"),
    ("steps: [{error: {name: gremlin}}]", "1:24: steps[0].error.name: 'gremlin' is no such error; there are"),
    ("steps: [{error: {name: mem_data_ec}}]", "'mem_data_ec' is no such error; did you mean 'mem_data_ecc'?"),
    (
        "steps: [{error: {name: internal, protocol: usb}}]",
        "steps[0].error.protocol: 'usb' is not one of cxl, pcie",
    ),
    (
        "steps: [{decay: {address: 0, scope: all}}]",
        "steps[0].decay.scope: 'all' is not one of bank, cacheline,",
    ),
    ("steps: [{correct: {address: 0, count: 0}}]", "steps[0].correct.count: 0 is not a number from 1"),
    ("steps: [{send: {opcode: any}}]", "1:25: steps[0].send.opcode: any command cannot be sent"),
    (
        "steps: [{send: {opcode: 4000h, payload: 0}}]",
        "1:41: steps[0].send.payload: '0' is not bytes as hexadecimal",
    ),
    ("steps: [{send: {opcode: 4000h, code: good}}]", "1:38: steps[0].send.code: 'good' is no return code"),
    (
        "steps: [{send: {opcode: 4000h, code: busy, output: 00}}]",
        "steps[0].send.output: only a command that succeeds",
    ),
    (
        "steps: [{expect: {}}]",
        "1:18: steps[0].expect: expects nothing; it is one of event, answer, send, health,",
    ),
    (
        "steps: [{expect: {poison: {lines: 1}, event: {log: fatal}}}]",
        "1:18: steps[0].expect: expects event and poison;",
    ),
    ("steps: [{expect: {poison: {}}}]", "1:27: steps[0].expect.poison.lines: is missing"),
    ("steps: [{expect: {guest: {output: x}}}]", "1:26: steps[0].expect.guest.run: is missing; it is text"),
    (
        "steps: [{expect: {guest: {run: ls, output: '('}}}]",
        "1:44: steps[0].expect.guest.output: '(' is no regular expr",
    ),
    (
        "steps: [{expect: {guest: {run: ls, status: 256}}}]",
        "1:44: steps[0].expect.guest.status: 256 is not a number",
    ),
    ("steps: [{link: !now up}]", "steps[0].link: has the tag '!now'; a scenario uses no tags"),
    ("steps:\n\t- link: up", "is not YAML: a tab stands where only spaces may indent"),
    ("--- {steps: [{link: up}]}\n--- {}", "a second document starts here; a scenario is one document"),
]


@pytest.mark.parametrize(("text", "words"), WRONG, ids=range(len(WRONG)))
def test_a_mistake_is_named_where_it_is(text, words):
    with pytest.raises(ScenarioError) as caught:
        scenario.loads(text, ONE, "bad.yaml")
    problem = str(caught.value)
    assert words in problem
    assert problem.startswith("bad.yaml:")
    assert len(caught.value.problems) == 1, problem


def test_all_mistakes_are_reported_in_the_files_order():
    with pytest.raises(ScenarioError) as caught:
        scenario.loads("steps:\n- {link: left}\n- {reset: warm}\n- {link: up, within: 1s}\n", ONE)
    assert [(one.line, one.column) for one in caught.value.problems] == [(2, 10), (3, 11), (4, 22)]


def test_a_step_names_its_device_where_there_are_several():
    with pytest.raises(ScenarioError, match=r"names no `device`, of which there are mem0, mem1"):
        scenario.loads("steps: [{link: up}]", TWO)
    assert scenario.loads("steps: [{run: ls}, {expect: {guest: {run: ls}}}]", TWO).steps[0].device is None


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ScenarioError, match="cannot be read: No such file"):
        scenario.load(tmp_path / "none.yaml", ONE)
    with pytest.raises(ScenarioError, match="cannot be read: Is a directory"):
        scenario.load(tmp_path, ONE)


FILE_WORDS = """steps before device seed link up poison address 0 4000h command fault effect hang expect event send
health run guest on every after 1s count any output ( ) [ null -1 1e9 0x fields type dram {}"""
WORDS = st.sampled_from(FILE_WORDS.split())
TREES = st.recursive(
    st.one_of(WORDS, st.integers(), st.none(), st.text(max_size=8)),
    lambda below: st.one_of(st.lists(below, max_size=4), st.dictionaries(WORDS, below, max_size=4)),
    max_leaves=20,
)


@given(TREES)
def test_anything_is_read_or_refused_in_words(tree):
    text = json.dumps({"steps": [tree]} if not isinstance(tree, dict) else tree)
    with suppress(ScenarioError):
        assert scenario.loads(text, ONE).steps
