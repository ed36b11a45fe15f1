"""Faults of commands: a command that fails, hangs, is late, or answers garbage, for as long and as often as asked.

Nothing of this costs anything while there is no fault and nobody watches: `Cci.intercept` is None then.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from softcxl.device.cci import Cci, Later, Reply
from softcxl.spec.command.base import ReturnCode

Watcher = Callable[[int, bytes, Reply], None]
OPCODES = 1 << 16


@dataclass(slots=True, eq=False)
class CommandFault:
    """What is wrong with a command: `opcode`, or any where that is None.

    `times` is how many more commands meet it (None: all, until it is cleared), each with `probability`, by `random`,
    which is seeded. `met` counts those that have.
    """

    opcode: int | None
    spoil: Callable[[CommandFault, Callable[[], Reply]], Reply]
    says: str
    times: int | None = None
    probability: float = 1.0
    random: random.Random = field(default_factory=lambda: random.Random(0))
    met: int = 0

    def __str__(self) -> str:
        return self.says

    @property
    def over(self) -> bool:
        """No command meets it any more."""
        return self.times is not None and self.met >= self.times

    def meets(self, opcode: int) -> bool:
        """Whether this command meets it; counted."""
        if self.over or self.opcode not in (None, opcode):
            return False
        if self.probability < 1.0 and self.random.random() >= self.probability:
            return False
        self.met += 1
        return True


class CommandFaults:
    """The faults of the commands of `cci`, the first one that a command meets has it; and who watches its commands.

    The lock that the `cci` has is held by whoever calls.
    """

    def __init__(self, cci: Cci) -> None:
        self._cci = cci
        self.faults: list[CommandFault] = []
        self.watchers: list[Watcher] = []

    def add(self, fault: CommandFault) -> None:
        """Let commands meet a fault."""
        self.faults.append(fault)
        self.settle()

    def settle(self) -> None:
        """Stand in the way of commands only where there is something to do."""
        self.faults = [one for one in self.faults if not one.over]
        self._cci.intercept = self._intercept if self.faults or self.watchers else None

    def _intercept(self, opcode: int, payload: bytes) -> Reply:
        fault = next((one for one in self.faults if one.meets(opcode)), None)
        if fault is not None and fault.over:
            self.settle()

        def run() -> Reply:
            return self._cci.run(opcode, payload)

        return self._told(opcode, payload, run() if fault is None else fault.spoil(fault, run))

    def _told(self, opcode: int, payload: bytes, reply: Reply) -> Reply:
        if isinstance(reply, Later):
            held = reply
            return replace(held, run=lambda: self._told(opcode, payload, held.run()))
        for watcher in list(self.watchers):
            watcher(opcode, payload, reply)
        return reply


# -- what can be wrong -------------------------------------------------------------------------------------------

Spoil = Callable[[CommandFault, Callable[[], Reply]], Reply]


def fails(code: ReturnCode, vendor_status: int = 0) -> Spoil:
    """It is not carried out, and answers with `code`."""
    reply = Reply(code, vendor_status=vendor_status)
    return lambda fault, run: reply


def late(seconds: float = math.inf) -> Spoil:
    """It is carried out and answered `seconds` later, or when it is released; a reset before that forgets it."""
    return lambda fault, run: Later(seconds=seconds, run=run)


def garbage() -> Spoil:
    """It is carried out; its output payload has random bytes, as many as it should have."""
    return _output(lambda fault, payload: fault.random.randbytes(len(payload)))


def short(size: int) -> Spoil:
    """It is carried out; its output payload ends after `size` bytes."""
    return _output(lambda fault, payload: payload[:size])


def long(size: int, payload_max: int) -> Spoil:
    """It is carried out; its output payload goes on with `size` random bytes, as far as there is room."""
    return _output(lambda fault, payload: (payload + fault.random.randbytes(size))[:payload_max])


def _output(change: Callable[[CommandFault, bytes], bytes]) -> Spoil:
    def spoil(fault: CommandFault, run: Callable[[], Reply]) -> Reply:
        reply = run()
        if reply.code is not ReturnCode.SUCCESS:
            return reply
        return replace(reply, payload=change(fault, reply.payload))

    return spoil
