"""Whatever an endpoint answers, the library gives a value or one of its own errors, and comes to an end."""

import asyncio
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcxl.fm import Answer, Device, Dialect, FmError, Switch
from softcxl.spec.command.events import EventLog
from softcxl.spec.fm.mld import QosControl
from softcxl.spec.fm.switch import PortOperation

SWITCH = {
    "identify": lambda one: one.identify(),
    "identify_switch": lambda one: one.identify_switch(),
    "ports": lambda one: one.ports(),
    "some ports": lambda one: one.ports([1, 2]),
    "control_port": lambda one: one.control_port(1, PortOperation.RESET_PPB),
    "virtual_switches": lambda one: one.virtual_switches(),
    "some virtual_switches": lambda one: one.virtual_switches([0, 1]),
    "vppb": lambda one: one.vppb(0, 1),
    "bind": lambda one: one.bind(0, 1, 2),
    "unbind": lambda one: one.unbind(0, 1),
    "generate_aer_event": lambda one: one.generate_aer_event(0, 0, 1),
    "read_configuration": lambda one: one.read_configuration(0, 0, 64),
    "write_configuration": lambda one: one.write_configuration(0, 0, b"12", 1),
    "read_memory": lambda one: one.read_memory(0, 0, 0, 64),
    "write_memory": lambda one: one.write_memory(0, 0, 0, b"12"),
    "has_domain_validation": lambda one: one.has_domain_validation(1),
    "domain_validation": lambda one: one.domain_validation(1),
    "response_message_limit": lambda one: one.response_message_limit(),
    "set_response_message_limit": lambda one: one.set_response_message_limit(256),
    "supported_logs": lambda one: one.supported_logs(),
    "command_effects": lambda one: one.command_effects(),
    "events": lambda one: one.events(EventLog.FATAL),
    "take_events": lambda one: one.take_events(EventLog.FATAL),
    "notification_policy": lambda one: one.notification_policy(),
    "background_operation": lambda one: one.background_operation(),
    "room of a device": lambda one: one.port(1).ld(2).room(),
    "a device's identity": lambda one: one.port(1).identify(),
}
DEVICE = {
    "ld_info": lambda one: one.ld_info(),
    "ld_allocations": lambda one: one.ld_allocations(),
    "set_ld_allocations": lambda one: one.set_ld_allocations([(0, 0)]),
    "qos_control": lambda one: one.qos_control(),
    "set_qos_control": lambda one: one.set_qos_control(QosControl()),
    "qos_status": lambda one: one.qos_status(),
    "allocated_bandwidth": lambda one: one.allocated_bandwidth(4),
    "set_bandwidth_limit": lambda one: one.set_bandwidth_limit([1, 2]),
    "heads": lambda one: one.heads(),
    "head_info": lambda one: one.head_info(2),
    "dc_info": lambda one: one.dc_info(),
    "dc_regions": lambda one: one.dc_regions(0),
    "dc_extents": lambda one: one.dc_extents(0),
    "dc_add": lambda one: one.dc_add(0, 1),
    "dc_release": lambda one: one.dc_release(0, None, 1),
    "dc_tags": lambda one: one.dc_tags(),
    "dc_add_reference": lambda one: one.dc_add_reference(UUID(int=1)),
}

# Mostly success, with counts that are small more often than not, so that lists go on.
ANSWERS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 0, 1, 2, 3, 0x77]),
        st.one_of(
            st.binary(max_size=160),
            st.lists(st.integers(0, 4), max_size=120).map(bytes),
        ),
    ),
    min_size=1,
    max_size=12,
)


class Garbage:
    """A channel that answers with these, over and over, up to a number of commands that no list of theirs takes."""

    name = "endpoint"
    dialect = Dialect.STANDARD

    def __init__(self, answers):
        self.answers, self.count = answers, 0

    async def exchange(self, opcode, payload):
        code, output = self.answers[self.count % len(self.answers)]
        self.count += 1
        assert self.count < 10_000, "it goes on for ever"
        return Answer(code, output)

    def notifications(self):
        raise AssertionError("nobody listens")


async def at_once(seconds):
    """A background operation that never ends is waited for as long as it takes: here not at all."""
    raise FmError("waits")


@pytest.mark.parametrize(
    ("kind", "ask"),
    [pytest.param(Switch, ask, id=name) for name, ask in SWITCH.items()]
    + [pytest.param(Device, ask, id=name) for name, ask in DEVICE.items()],
)
@settings(max_examples=20, deadline=None)
@given(answers=ANSWERS)
def test_garbage(kind, ask, answers):
    try:
        asyncio.run(ask(kind(Garbage(answers), pause=at_once)))
    except FmError:
        pass
