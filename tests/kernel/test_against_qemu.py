"""The same commands to our device and to QEMU's cxl-type3: each difference is explained in docs/spec-errata.md.

The table there is read here, so that it has neither too few rows nor too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.type3 import Type3
from softcxl.lab.parts import Parts
from softcxl.testing.driver import Driver
from tests.kernel.peer import QemuDevice
from tests.kernel.scenarios import SCENARIOS

PAGE = Path(__file__).parents[2] / "docs" / "spec-errata.md"
MIB = 1 << 20
OBJECTS = [
    f"memory-backend-ram,id={name},size={size}"
    for name, size in (("v", "256M"), ("p", "256M"), ("l", "128K"))
]
PROPERTIES = "volatile-memdev=v,persistent-memdev=p,lsa=l,sn=0x1234"
ENDS = "ends"
VERSION = (11, 1, 3)

# by number, as CMD_CMD_RC_TABLE of Linux has them (drivers/cxl/cxlmem.h)
CODES = (
    *(
        "Success",
        "Background",
        "Invalid Input",
        "Unsupported",
        "Internal Error",
        "Retry",
        "Busy",
        "Media Disabled",
    ),
    *("FW Transfer In Progress", "FW Out Of Order", "FW Authentication", "Invalid Slot", "FW Rolled Back"),
    *(
        "Cold Reset Required",
        "Invalid Handle",
        "Invalid Physical Address",
        "Poison Limit",
        "Media Failure",
        "Aborted",
    ),
    *("Security State", "Passphrase", "Unsupported Mailbox", "Payload Length", "Invalid Log", "Interrupted"),
    *("Feature Version", "Feature Selection", "Feature Transfer In Progress", "Feature Out Of Order"),
    *("Resources Exhausted", "Extent List", "Transfer Out Of Order", "No Background Abort"),
)

Answer = str | tuple[str, bytes]


@pytest.fixture
def ours() -> Iterator[Driver]:
    device = Type3(
        "mem0",
        volatile=256 * MIB,
        persistent=256 * MIB,
        label_storage=128 << 10,
        serial=0x1234,
        clock=ManualClock(),
    )
    yield Driver(device)
    device.close()


def explained(scenario: str) -> dict[str, tuple[str, str]]:
    """What the page's table says of a scenario: by step, what ours answers and what QEMU does."""
    rows = re.findall(r"^\| (.+?): (.+?) \| (.+?) \| (.+?) \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    return {label: (mine, other) for name, label, mine, other in rows if name == scenario}


def told(answers: tuple[Answer, Answer]) -> tuple[str, str]:
    """Two answers in the words of the table: their codes, or for equal codes that the bytes differ."""
    (mine, other) = (answer if isinstance(answer, str) else answer[0] for answer in answers)
    return (mine, other) if mine != other else (mine, "other bytes")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_differences_are_explained(scenario: str, ours: Driver, parts: Parts) -> None:
    if parts.qemu.version != VERSION:
        pytest.skip(f"the table is of QEMU {VERSION}, and this is {parts.qemu.version}")
    differences = {}
    with QemuDevice(parts, OBJECTS, PROPERTIES) as peer:
        theirs = Driver(peer)
        for label, opcode, payload in SCENARIOS[scenario]:
            code, reply = ours.send(opcode, payload)
            mine: Answer = (CODES[code], reply)
            try:
                code, reply = theirs.send(opcode, payload)
                other: Answer = (CODES[code], reply)
            except ConnectionError:
                other = ENDS
            if mine != other:
                differences[label] = told((mine, other))
            if other == ENDS:
                break
    assert differences == explained(scenario)
