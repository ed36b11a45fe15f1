"""Notes what of the standard the tests exercise, for the table of what is covered: commands that succeeded, event
records that were fetched, capabilities whose registers were accessed, data objects answered, features read or set.

    pytest --record-coverage=docs/reference/coverage.json

What an unmodified Linux did, in a test of mark `guest` and through a guest's door, is told from what was done in this
process, by any other test. Of the tests that did something the file names one, the one that did the fewest other
things, and those of devices first.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID
from weakref import WeakKeyDictionary

import pytest

from softcxl.device import coverage
from softcxl.device.cci import Cci, Reply
from softcxl.device.endpoint import Endpoint
from softcxl.device.mld.owner import FmOwnedDevice
from softcxl.device.notification import NotificationPolicy
from softcxl.device.reach import Capability, capabilities
from softcxl.pci.doe import DoeMailbox
from softcxl.pci.function import Function
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.events import EVENT_NOTIFICATION

ACCEPTED = (ReturnCode.SUCCESS, ReturnCode.BACKGROUND_STARTED)
_FIRST = ("tests/device/", "tests/kernel/")
GET_EVENT_RECORDS, GET_FEATURE, SET_FEATURE = 0x0100, 0x0501, 0x0502


class Recorder:
    """Notes, by key and kind of test, the files of tests. `file` is the one of the test that runs now, `guest` whether
    it drives a guest."""

    def __init__(self) -> None:
        self.file, self.guest = "", False
        self.ran: dict[str, bool] = {}
        self.seen: dict[tuple[str, str], set[str]] = {}
        self._reach: WeakKeyDictionary[Function, list[Capability]] = WeakKeyDictionary()
        self._looking = threading.local()

    def starts(self, file: str, guest: bool) -> None:
        """A test of `file` starts."""
        self.file, self.guest = file, guest
        self.ran[file] = True

    def note(self, key: str) -> None:
        if not self.guest:
            self.seen.setdefault((key, coverage.PROCESS), set()).add(self.file)
        elif threading.current_thread().name.startswith("door "):
            self.seen.setdefault((key, coverage.GUEST), set()).add(self.file)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this is entered, what devices do is noted."""
        with (
            mock.patch.object(Cci, "execute", self._execute(Cci.execute)),
            mock.patch.object(NotificationPolicy, "_notify", self._notify(NotificationPolicy._notify)),
            mock.patch.object(DoeMailbox, "_answer", self._answer(DoeMailbox._answer)),
            mock.patch.object(Function, "read", self._access(Function.read)),
            mock.patch.object(Function, "write", self._access(Function.write)),
        ):
            yield

    def _execute(self, real: Callable[..., Reply]) -> Callable[..., Reply]:
        @wraps(real)
        def execute(cci: Cci, opcode: int, payload: bytes = b"") -> Reply:
            reply = real(cci, opcode, payload)
            if reply.code in ACCEPTED:
                self.note(coverage.command_key(opcode))
                if opcode == GET_EVENT_RECORDS:
                    for at in range(0x20, len(reply.payload), 0x80):
                        self.note(coverage.event_key(UUID(bytes=reply.payload[at : at + 16])))
                elif opcode in (GET_FEATURE, SET_FEATURE):
                    self.note(coverage.feature_key(UUID(bytes=payload[:16])))
            return reply

        return execute

    def _notify(self, real: Callable[..., None]) -> Callable[..., None]:
        @wraps(real)
        def notify(policy: NotificationPolicy, what: int) -> None:
            if policy._settings & what:
                self.note(coverage.command_key(EVENT_NOTIFICATION.opcode))
            real(policy, what)

        return notify

    def _answer(self, real: Callable[..., bytes]) -> Callable[..., bytes]:
        @wraps(real)
        def answer(mailbox: DoeMailbox, request: bytes) -> bytes:
            response = real(mailbox, request)
            if response:
                self.note(coverage.object_key(*struct.unpack_from("<HB", request)))
            return response

        return answer

    def _access(self, real: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(real)
        def access(function: Function, region: int, offset: int, what: Any) -> Any:
            answers = isinstance(function, Endpoint | FmOwnedDevice) and not function.silent
            if answers and not getattr(self._looking, "now", False):
                for one in self._capabilities(function):
                    if one.region == region and one.start <= offset < one.end:
                        self.note(one.key)
            return real(function, region, offset, what)

        return access

    def _capabilities(self, function: Function) -> list[Capability]:
        if function not in self._reach:
            self._looking.now = True
            try:
                self._reach[function] = list(capabilities(function))
            finally:
                self._looking.now = False
        return self._reach[function]

    def merge(self, file: Path, root: Path) -> None:
        """Bring `file` up to date: what the tests that ran have exercised, and of those that did not run, and are
        still there, what it said before."""
        before = coverage.evidence(file) if file.exists() else {}
        known = {row.key for rows in coverage.tables().values() for row in rows}
        found: dict[str, dict[str, str]] = {
            key: {kind: test for kind, test in of.items() if test not in self.ran and (root / test).exists()}
            for key, of in before.items()
        }
        breadth: dict[str, int] = {}
        for tests in self.seen.values():
            for test in tests:
                breadth[test] = breadth.get(test, 0) + 1
        for (key, kind), tests in self.seen.items():
            found.setdefault(key, {})[kind] = min(
                tests, key=lambda test: (not test.startswith(_FIRST), breadth[test], test)
            )
        kept = {key: dict(sorted(of.items())) for key, of in sorted(found.items()) if of and key in known}
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(of)}" for key, of in kept.items())
        file.write_text(f"{{\n{lines}\n}}\n", "utf-8")


class Plugin:
    """The recorder, told by pytest what runs. Where tests run side by side (pytest-xdist), each process hands what it
    saw to the one that shares them out, which writes the file."""

    def __init__(self, file: Path) -> None:
        self.file, self.recorder = file, Recorder()
        self._watching = self.recorder.watching()

    def pytest_sessionstart(self) -> None:
        self._watching.__enter__()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        file = item.path.relative_to(item.config.rootpath).as_posix()
        self.recorder.starts(file, item.get_closest_marker("guest") is not None)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        for file, key, kind in getattr(node, "workeroutput", {}).get("exercised", ()):
            self.recorder.ran[file] = True
            if key:
                self.recorder.seen.setdefault((key, kind), set()).add(file)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._watching.__exit__(None, None, None)
        output = getattr(session.config, "workeroutput", None)
        if output is None:
            self.recorder.merge(self.file, session.config.rootpath)
            return
        output["exercised"] = [(file, "", "") for file in self.recorder.ran] + [
            (file, key, kind) for (key, kind), files in self.recorder.seen.items() for file in files
        ]
