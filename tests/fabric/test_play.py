"""Scenarios played in this process: their order, their time, and their verdict."""

from __future__ import annotations

import pytest

from softcxl.device.clock import ManualClock
from softcxl.fabric.build import Fabric
from softcxl.fabric.play import play
from softcxl.fabric.report import Report
from softcxl.fabric.scenario import loads

TOPOLOGY = """
devices: {mem0: {volatile: 256MiB}}
hosts: {alpha: {bridges: {hb0: {ports: [mem0]}}, windows: [{size: 256MiB, targets: [hb0]}]}}
"""


def played(text: str, topology: str = TOPOLOGY) -> Report:
    clock = ManualClock()
    with Fabric.loads(topology, clock=clock) as fabric:
        return play(fabric, loads(text, fabric.topology), clock)


def results(report: Report) -> list[tuple[str, str, float]]:
    return [(one.result, one.detail, one.seconds) for one in report.outcomes]


def test_steps_come_in_order_and_time_passes_only_where_they_wait():
    report = played(
        """
steps:
  - {poison: {address: 0, length: 128}}
  - {after: 2h, poison: {address: 0x1000}}
  - {after: 90s, expect: {poison: {lines: 3}}}
  - {after: 1min, expect: {poison: {lines: 2, length: 4KiB}}}
""".replace("2h", "7200s")
    )
    assert results(report) == [
        ("done", "2 lines", 0),
        ("done", "1 lines", 7200),
        ("met", "3 lines", 7290),
        ("met", "2 lines", 7350),
    ]
    assert report.passed


def test_media_that_decay_and_what_a_scrub_finds():
    """Patrol scrub is once round in twelve hours."""
    report = played(
        """
steps:
  - {decay: {address: 0x40, every: 1s, endurance: 2}}
  - {after: 2s, expect: {health: {corrected_volatile_error_count: 2}}}
  - {expect: {event: {type: dram, count: 2}}}
  - {spoil: {address: 4KiB, length: 128}}
  - {after: 1s, expect: {poison: {lines: 0}}}
  - {after: 43200s, expect: {poison: {lines: 3}}}
  - {clear: poison}
  - {after: 43200s, expect: {poison: {lines: 1}}}
  - {clear: decay}
  - {clear: poison}
  - {after: 43200s, expect: {poison: {lines: 0}}}
"""
    )
    assert [one.detail for one in report.outcomes if one.result == "failed"] == []
    assert report.passed
    assert report.outcomes[3].detail == "2 lines"


def test_an_expectation_that_is_not_met_says_what_was_and_the_rest_goes_on():
    report = played(
        """
steps:
  - {expect: {poison: {lines: 1}}, within: 3s}
  - {expect: {event: {log: fatal}}}
  - {expect: {health: {life_used: 3}}}
  - {expect: {send: {opcode: 4000h, output: 00}}}
  - {expect: {send: {opcode: 4000h, code: busy}}}
  - {expect: {event: {count: 0}}}
"""
    )
    assert results(report) == [
        ("not met", "0 lines", 3),
        ("not met", "0 such events", 3),
        ("not met", "life_used is 0", 3),
        ("not met", "output begins with 73", 3),
        ("not met", "return code success", 3),
        ("met", "0 such events", 3),
    ]
    assert not report.passed
    assert report.plain()["steps"][0] == {
        "step": "steps[0]",
        "what": "mem0: expect poison lines 1, address 0x0",
        "result": "not met",
        "detail": "0 lines",
        "seconds": 3,
        "times": 1,
    }


def test_within_ends_as_soon_as_it_is_so():
    report = played(
        """
steps:
  - {every: 1s, count: 4, event: {type: dram, log: warning}}
  - {expect: {event: {log: warning, count: 3}}, within: 1min}
  - {expect: {event: {log: warning, count: 4}}}
"""
    )
    assert [(one.result, one.seconds, one.times) for one in report.outcomes] == [
        ("done", 4, 4),
        ("met", 3, 1),
        ("not met", 3, 1),
    ], "the third step does not wait; the scenario ends when what is counted has been"


def test_what_goes_on_without_end_ends_with_the_last_step():
    report = played("steps: [{every: 1s, event: {type: dram}}, {after: 5500ms, link: up}]")
    assert [one.times for one in report.outcomes] == [5, 1]


def test_a_trigger_fires_as_often_as_asked_after_what_it_waits_for():
    report = played(
        """
steps:
  - {on: command 4200h, count: 2, poison: {address: 0x40}}
  - {on: event failure, event: {type: vendor, log: informational}}
  - {on: command 4400h, die: silent}
  - {expect: {send: {opcode: 4200h}}}
  - {expect: {poison: {lines: 1}}}
  - {expect: {event: {type: vendor}}}
  - {send: {opcode: 4200h}}
  - {send: {opcode: 4200h}}
"""
    )
    assert [(one.result, one.times) for one in report.outcomes[:3]] == [
        ("done", 2),
        ("done", 1),
        ("waiting", 0),
    ]
    assert report.passed


def test_before_the_host_boots():
    report = played(
        """
before: [{fault: {command: 4000h, effect: garble, times: 1}}]
steps:
  - {expect: {answer: {command: 4000h, code: success}}}
  - {expect: {guest: {run: cxl list}}}
  - {run: cxl list}
"""
    )
    assert [one.result for one in report.outcomes] == ["done", "met", "skipped", "skipped"]


def test_a_hang_is_no_answer_to_the_driver_until_it_is_over():
    report = played(
        """
steps:
  - {fault: {command: 4000h, effect: delay, for: 3s, times: 1}}
  - {expect: {send: {opcode: 4000h, code: none}}}
  - {after: 2900ms, expect: {send: {opcode: 4200h, code: none}}}
  - {after: 200ms, expect: {send: {opcode: 4200h}}}
"""
    )
    assert report.passed, results(report)


def test_the_seed_decides_chances():
    def codes(seed: int) -> list[str]:
        sends = "".join("  - {send: {opcode: 4200h}}\n" for _ in range(32))
        fault = "{command: any, effect: fail, code: busy, probability: 0.5}"
        report = played(f"seed: {seed}\nsteps:\n  - {{fault: {fault}}}\n{sends}")
        return [one.detail for one in report.outcomes[1:]]

    assert codes(1) == codes(1)
    assert codes(1) != codes(2)
    assert set(codes(1)) == {"busy", "success"}


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("{poison: {address: 1GiB}}", "64 bytes at DPA 0x40000000: the device has 0x10000000 bytes"),
        ("{spoil: {address: 1GiB}}", "64 bytes at DPA 0x40000000: the device has 0x10000000 bytes"),
        ("{decay: {address: 1GiB}}", "DPA 0x40000000: the device has 0x10000000 bytes"),
        ("{decay: {address: 0, every: 0s}}", "more than 0"),
        ("{event: {type: dram, log: dynamic_capacity}}", "the device has the logs INFORMATIONAL"),
        ("{event: {type: dram, fields: {dpa: 0x80000000}}}", "the device has 0x10000000 bytes"),
        ("{fault: {command: any, effect: lengthen, size: 0x10000}}", "1 to 4096 are allowed"),
        ("{send: {opcode: 4001h, code: success}}", "return code unsupported"),
    ],
)
def test_an_action_that_cannot_be_done_fails_the_scenario(step, words):
    report = played(f"steps: [{step}]")
    assert report.outcomes[0].result == "failed"
    assert words in report.outcomes[0].detail
    assert not report.passed


def test_nothing_is_left_in_the_way_of_commands():
    clock = ManualClock()
    with Fabric.loads(TOPOLOGY, clock=clock) as fabric:
        play(fabric, loads("steps: [{link: up}]", fabric.topology), clock)
        device = fabric.devices["mem0"]
        assert device.cci.intercept is None
        assert device.events.taken == []


def test_a_fabric_without_hosts():
    topology = "devices: {mem0: {volatile: 256MiB}}"
    assert played("steps: [{expect: {send: {opcode: 4000h, output: 736f6674}}}]", topology).passed
