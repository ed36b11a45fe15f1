"""A scenario beside a guest: `softcxl.fabric.play` in a thread, in real time, with the guest's shell."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Self

from softcxl.device.clock import SystemClock
from softcxl.fabric.build import Fabric
from softcxl.fabric.pace import Real
from softcxl.fabric.play import Player
from softcxl.fabric.report import Report
from softcxl.fabric.scenario_keys import Scenario
from softcxl.lab.errors import LabError
from softcxl.lab.guest import Guest

COMMAND_TIMEOUT = 120.0
"""Seconds that a line for the guest's shell may take."""
LOST = 255
"""The exit status of a line that could not be run to its end."""


class Beside:
    """Plays a scenario over `fabric` while a guest runs on it: enter it before the boot, `start` it with the guest that
    is ready, and `finish` when nothing else is to run in the guest. Lines for its shell wait for that."""

    def __init__(self, fabric: Fabric, scenario: Scenario) -> None:
        clock = SystemClock()
        self._clock, self._pace = clock, Real(clock)
        self._player = Player(fabric, scenario, self._pace)
        self._free = threading.Event()
        self._open = ExitStack()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._clock.close)
            undo.enter_context(self._player.listening())
            self._player.before()
            self._open = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._pace.stop.set()
        self._free.set()
        if self._thread is not None:
            self._thread.join()
        self._open.close()

    def start(self, guest: Guest) -> None:
        """The guest is ready: the scenario's time begins."""

        def shell(line: str) -> tuple[int, str]:
            self._free.wait()
            if self._pace.stop.is_set():
                return LOST, "the scenario was stopped"
            try:
                result = guest.run(line, COMMAND_TIMEOUT)
            except LabError as error:
                return LOST, str(error)
            return result.status, result.text + result.stderr.decode(errors="replace")

        def steps() -> None:
            try:
                self._player.steps()
            except BaseException as error:  # noqa: BLE001  for `finish` to raise in the caller's thread
                self._error = error

        self._player.shell = shell
        self._thread = threading.Thread(target=steps, name="softcxl-scenario", daemon=True)
        self._thread.start()

    def finish(self) -> Report:
        """Wait for the end of the scenario; what became of it."""
        self._free.set()
        assert self._thread is not None, "it has been started"
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._player.report
