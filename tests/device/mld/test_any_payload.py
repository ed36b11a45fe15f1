"""Anything may come in at an FM-owned LD's door: it is answered with a return code of the standard, and what is
refused has changed nothing."""

import random

import pytest

from softcxl.spec.command.base import ReturnCode
from tests.device.mld.conftest import Door
from tests.device.mld.test_owner import COMMANDS as OF_ALL
from tests.device.mld.test_tunnels import message, tunnel

COMMANDS = {*OF_ALL, 0x5500, 0x5501}
ASKING = (0x0001, 0x0002, 0x0003, 0x0104, 0x0300, 0x0400, 0x5400, 0x5403, 0x5405)
REFUSALS = {
    *(ReturnCode.INVALID_INPUT, ReturnCode.INVALID_PAYLOAD_LENGTH, ReturnCode.INVALID_HANDLE),
    *(ReturnCode.INVALID_LOG, ReturnCode.UNSUPPORTED),
}


def snapshot(pool, door):
    asked = [(0x5401, b"\0\xff"), (0x5406, b"\4\0"), (0x5408, b"\4\0")]
    return [door.send(*one) for one in (*((opcode, b"") for opcode in ASKING), *asked)], dict(pool.logical)


@pytest.mark.parametrize("seed", range(8))
def test_any_payload(make, caplog, seed):
    numbers = random.Random(seed)
    pool = make(heads=numbers.choice((1, 2, 4)))
    door = Door(numbers.choice([pool, *pool.heads]).management)
    reference = Door(pool.management)
    before = snapshot(pool, reference)
    answers = set()
    for _ in range(1500):
        opcode = numbers.choice(sorted(COMMANDS)) if numbers.random() < 0.95 else numbers.randrange(1 << 16)
        size = numbers.choice((0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 20, 24, 36, 52, 68, 200, 8192, 8193))
        payload = numbers.choice((numbers.randbytes(size), bytes(size), b"\1" * size, b"\xff" * size))
        if opcode == 0x5300 and numbers.random() < 0.8:
            inner = message(numbers.choice(sorted(COMMANDS)), payload[:4000])
            payload = tunnel(numbers.choice((0, 1, 2, 3, 4, 255)), inner, target=numbers.choice((0, 0, 1, 2)))
        code, answer = door.send(opcode, payload)
        answers.add(code)
        if code in REFUSALS:
            assert answer == b""
            assert snapshot(pool, reference) == before
        else:
            assert code == ReturnCode.SUCCESS
            assert len(answer) <= 8192
            before = snapshot(pool, reference)
    assert answers > {ReturnCode.SUCCESS, ReturnCode.INVALID_PAYLOAD_LENGTH}
    assert caplog.records == []


@pytest.mark.parametrize("opcode", sorted(OF_ALL - {0x5300}))
def test_one_length_alone(door, opcode):
    """Of zeros: what counts entries counts none."""
    codes = [door.send(opcode, bytes(size))[0] for size in range(256)]
    assert codes.count(ReturnCode.INVALID_PAYLOAD_LENGTH) == 255
