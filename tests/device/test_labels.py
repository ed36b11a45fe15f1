"""The label storage area beside a bytearray: any offsets, any lengths, the end of the process, a medium that fails."""

import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softcxl.memory import Medium
from softcxl.spec.command.label import GET_LSA, SET_LSA
from softcxl.testing.driver import Driver

SUCCESS, INPUT, INTERNAL, LENGTH = 0, 2, 4, 0x16
SIZE = 8192
PAYLOAD = 4096


def get(driver, offset, length):
    return driver.send(GET_LSA.opcode, struct.pack("<II", offset, length))


def put(driver, offset, data):
    return driver.send(SET_LSA.opcode, struct.pack("<I4x", offset) + data)


offsets = st.one_of(st.integers(0, SIZE + 64), st.sampled_from([SIZE - 1, SIZE, 1 << 31, (1 << 32) - 1]))


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.tuples(offsets, st.binary(max_size=64), offsets), max_size=8))
def test_any_accesses(make, steps):
    driver, model = Driver(make(label_storage=SIZE)), bytearray(SIZE)
    for offset, data, length in steps:
        if offset + len(data) <= SIZE:
            assert put(driver, offset, data) == (SUCCESS, b"")
            model[offset : offset + len(data)] = data
        else:
            assert put(driver, offset, data) == (INPUT, b"")
        if length <= PAYLOAD and offset + length <= SIZE:
            assert get(driver, offset, length) == (SUCCESS, model[offset : offset + length])
        else:
            assert get(driver, offset, length) == (INPUT, b"")
    assert get(driver, 0, PAYLOAD)[1] + get(driver, PAYLOAD, PAYLOAD)[1] == model


def test_more_than_a_payload_holds(make):
    driver = Driver(make(label_storage=SIZE))
    assert get(driver, 0, PAYLOAD + 1) == (INPUT, b"")
    assert put(driver, 0, bytes(PAYLOAD - 8)) == (SUCCESS, b"")
    assert put(driver, 0, bytes(PAYLOAD)) == (LENGTH, b"")


def test_a_device_without_labels(make):
    driver = Driver(make(label_storage=0))
    assert get(driver, 0, 1) == put(driver, 0, b"x") == (INPUT, b"")


def test_labels_outlive_the_process(make, tmp_path):
    with Medium.open(tmp_path / "labels", SIZE) as medium:
        assert put(Driver(make(label_medium=medium)), 100, b"label") == (SUCCESS, b"")
    with Medium.open(tmp_path / "labels", SIZE) as medium:
        assert get(Driver(make(label_medium=medium)), 100, 5) == (SUCCESS, b"label")


def test_a_medium_that_fails(make, monkeypatch, caplog):
    device = make(label_storage=SIZE)
    driver = Driver(device)

    def fail(offset, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(device.labels._medium, "write", fail)
    assert put(driver, 0, b"x") == (INTERNAL, b"")
    assert get(driver, 0, 1) == (SUCCESS, b"\0")
    assert "command 4103h failed" in caplog.text
