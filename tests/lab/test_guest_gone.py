"""What is said of a QEMU that has ended, whatever one hears of it first."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from softcxl.lab import guest as module
from softcxl.lab.errors import GuestGone
from softcxl.lab.guest import Guest
from softcxl.lab.parts import Parts
from softcxl.lab.plan import GuestPlan


class Agent:
    """Its socket is closed already."""

    boot = "there"

    def __init__(self, told: threading.Event) -> None:
        self._told = told

    def run(self, command: str, given: bytes) -> None:
        self._told.set()
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("ends", [True, False])
def test_a_socket_that_is_closed_before_qemu_has_ended(monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    monkeypatch.setattr(module, "_ENDING", 60.0 if ends else 0.0)
    guest, asked = Guest(GuestPlan("g"), cast(Parts, None)), threading.Event()
    state: Any = guest
    state.agent, state._child = Agent(asked), SimpleNamespace(status=-9)
    monkeypatch.setattr(guest, "qemu_said", lambda: "")

    def end() -> None:
        assert asked.wait(60)
        guest._on_end()

    ending = threading.Thread(target=end if ends else asked.wait)
    ending.start()
    with pytest.raises(GuestGone, match="status -9" if ends else "The guest is gone: .*Broken pipe"):
        guest.run("true")
    ending.join()
