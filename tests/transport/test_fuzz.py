"""Messages that nobody thought of: the door answers, refuses or hangs up, and keeps nothing."""

from __future__ import annotations

from pathlib import Path
from struct import pack

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softcxl.testing.vfio_client import Client, Gone
from softcxl.transport.vfio_user import Door
from tests.transport import fuzz_vfio_user
from tests.transport.conftest import holdings
from tests.transport.ports import CONFIG, ScratchPort

FEW = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
NUMBERS = st.integers(0, 40) | st.sampled_from([0x1000, 0xFFFFFFFF, 0x80000000])
PAYLOADS = st.binary(max_size=64) | st.lists(NUMBERS, max_size=10).map(
    lambda values: pack(f"<{len(values)}I", *values)
)
MESSAGES = st.tuples(st.integers(0, 20), PAYLOADS, st.sampled_from([0, 0, 0x10]))


@FEW
@given(messages=st.lists(MESSAGES, max_size=8))
def test_whole_messages_of_any_content(door: Door, messages: list[tuple[int, bytes, int]]) -> None:
    """Every command that wants a reply gets exactly one, in order, with its message id and command."""
    with Client(door.path) as client:
        client.negotiate()
        for ident, (command, payload, flags) in enumerate(messages):
            client.send_bytes(pack("<HHIII", ident, command, 16 + len(payload), flags, 0) + payload)
        client.send(13, ident=0xFFFF)
        expected = [(ident, command) for ident, (command, _, flags) in enumerate(messages) if not flags]
        got = []
        while (message := client.receive()).header.ident != 0xFFFF:
            assert message.is_reply
            assert not (message.header.flags.error and message.payload)
            got.append((message.header.ident, message.header.command))
        assert got == expected


@FEW
@given(noise=st.binary(min_size=1, max_size=200), greeted=st.booleans())
def test_noise(door: Door, port: ScratchPort, noise: bytes, greeted: bool) -> None:
    with Client(door.path) as client:
        try:
            if greeted:
                client.negotiate()
            client.send_bytes(noise)
        except Gone:
            pass
    with Client(door.path) as client:
        client.negotiate()
        assert client.read(CONFIG, 0, 2) == b"\x00\x01"


def test_the_fuzzer_itself_runs(no_leaks: None, tmp_path: Path) -> None:
    before = holdings()
    seen = fuzz_vfio_user.run(6000, seed=7, every=2000)
    assert holdings() == before
    assert seen["messages"] == 6000
    for name in (
        "refusals",
        "replies",
        "commands",
        "door: reads",
        "door: interrupts",
        "door: protocol_errors",
    ):
        assert seen[name] > 0, name
