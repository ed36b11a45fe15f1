"""A guest that is killed with a region in use: devices and fabric go on, and the next guest finds them in order."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from softcxl import Fabric, boot
from softcxl.lab.errors import GuestGone
from softcxl.lab.parts import Parts
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import GENERAL_MEDIA_EVENT, EventHeader, GeneralMediaEvent
from tests.kernel.conftest import Linux, dealt, pattern
from tests.kernel.traces import until

TOPOLOGY = "two-devices.yaml"
MIB = 1 << 20
ORDER = ["mem1", "mem0"]


def held(fabric: Fabric, seed: int) -> bool:
    """The devices hold the pattern, dealt out as the region of these tests deals it."""
    words = pattern(MIB, seed)
    return all(
        fabric.devices[name].space.read(0, MIB // 2) == dealt(words, 2, 256, position).tobytes()
        for position, name in enumerate(ORDER)
    )


def users(fabric: Fabric) -> list[str]:
    """The devices that a guest has."""
    return [
        name
        for name, device in fabric.devices.items()
        if device.attached or fabric.open_doors[name].connected
    ]


def test_the_fabric_outlives_a_killed_guest(fabric: Fabric, parts: Parts) -> None:
    threads = set(threading.enumerate())
    movable = ["memhp_default_state=online_movable"]
    with boot(fabric, parts=parts, append=movable) as machine:
        guest = Linux(machine, fabric)
        guest.create_region(ORDER)
        path = guest.devdax()
        guest.sh(f"softcxl-memory fill {path} 0 {MIB} 3")
        guest.sh(f"while :; do softcxl-memory check {path} 0 {MIB} 3; done >/dev/null 2>&1 &")
        os.kill(machine.pid, signal.SIGKILL)
        with pytest.raises(GuestGone, match="status -9"):
            guest.run("true")
        assert until(lambda: users(fabric), lambda found: not found) == []
        for device in fabric.devices.values():
            event = GeneralMediaEvent(header=EventHeader(identifier=GENERAL_MEDIA_EVENT))
            assert device.record_event(EventLog.WARNING, event)
        assert held(fabric, 3)
    assert fabric.open_doors == {}
    assert until(lambda: set(threading.enumerate()) - threads, lambda more: not more) == set()
    with boot(fabric, parts=parts, append=movable) as machine:
        guest = Linux(machine, fabric)
        assert guest.json("cxl list -R") == []
        assert not any(device.space.commitments for device in fabric.devices.values())
        # the kernel has fetched, as it found the device, what happened while nobody was there
        assert not any(device.events.logs[EventLog.WARNING].records for device in fabric.devices.values())
        guest.create_region(ORDER)
        path = guest.devdax()
        guest.sh(f"softcxl-memory check {path} 0 {MIB} 3")
        guest.sh(f"softcxl-memory fill {path} 0 {MIB} 4")
        assert held(fabric, 4)
