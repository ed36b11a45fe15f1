"""QEMU's machine protocol: commands, their replies, and events.

Source: QEMU docs/interop/qmp-spec.rst. Replies and events arrive in the guest's pump thread; only `execute` waits.
Never call it where QEMU itself waits for us, as inside a device's request handler: QEMU answers neither then.
"""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from softcxl.lab.errors import MonitorError


class Monitor:
    """One connection to a QEMU's monitor, over a socket that a pump reads."""

    def __init__(
        self,
        connection: socket.socket,
        changed: threading.Condition,
        on_event: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> None:
        """`changed` is notified on every message; `on_event` is called in the pump's thread and must not execute."""
        self._connection = connection
        self._changed = changed
        self._on_event = on_event
        self._buffer = bytearray()
        self._replies: dict[int, dict[str, Any]] = {}
        self._greeted = False
        self._closed = False
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self.events: list[tuple[str, dict[str, Any]]] = []
        """Events so far, oldest first: name and data."""

    @property
    def closed(self) -> bool:
        """QEMU has hung up."""
        return self._closed

    def feed(self, data: bytes) -> None:
        """Take what came from QEMU; empty bytes mean it hung up."""
        heard: list[tuple[str, dict[str, Any]]] = []
        with self._changed:
            self._closed = self._closed or not data
            self._buffer += data
            while (end := self._buffer.find(b"\n")) >= 0:
                line = bytes(self._buffer[:end]).strip()
                del self._buffer[: end + 1]
                message = _message(line)
                if "QMP" in message:
                    self._greeted = True
                elif "event" in message:
                    heard.append((str(message["event"]), message.get("data", {})))
                elif isinstance(message.get("id"), int):
                    self._replies[message["id"]] = message
            self.events += heard
            self._changed.notify_all()
        if self._on_event is not None:
            for name, details in heard:
                self._on_event(name, details)

    def negotiate(self, timeout: float = 120.0) -> None:
        """Wait for QEMU's greeting and enter command mode. Raises MonitorError."""
        self._await(lambda: self._greeted, "greet", timeout)
        self.execute("qmp_capabilities", timeout=timeout)

    def execute(self, command: str, /, *, timeout: float = 120.0, **arguments: Any) -> Any:
        """Run a command and return its result. Underscores in names become hyphens.

        Raises:
            MonitorError: QEMU says no, hangs up, or does not answer within `timeout` seconds.
        """
        number = next(self._numbers)
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        request = json.dumps({"execute": command, "arguments": given, "id": number}) + "\n"
        try:
            with self._sending:
                self._connection.sendall(request.encode())
        except OSError as error:
            raise MonitorError(f"QEMU closed its monitor before {command}.") from error
        self._await(lambda: number in self._replies, f"answer {command}", timeout)
        reply = self._replies.pop(number)
        if "error" in reply:
            raise MonitorError(f"QEMU refused {command}: {reply['error'].get('desc', 'no reason given')}")
        return reply.get("return")

    def wait_event(
        self,
        name: str,
        timeout: float,
        since: int = 0,
        matching: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> dict[str, Any]:
        """The first event `name` at or after position `since` of `events`; waits for it. Raises MonitorError."""

        def found() -> list[dict[str, Any]]:
            return [data for one, data in self.events[since:] if one == name and matching(data)]

        self._await(lambda: bool(found()), f"report {name}", timeout)
        return found()[0]

    def _await(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not condition():
                if self._closed:
                    raise MonitorError(f"QEMU ended before it could {what}.")
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise MonitorError(f"QEMU did not {what} within {timeout:g} seconds.")
                self._changed.wait(remaining)


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line) if line else {}
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
