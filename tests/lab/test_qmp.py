"""The monitor, against a scripted QEMU that says what QEMU 11.1 says."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from softcxl.lab.errors import MonitorError
from softcxl.lab.pump import Pump
from softcxl.lab.qmp import Monitor

GREETING = (
    '{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}}, "capabilities": ["oob"]}}\r\n'
)


class Script:
    """The far end: sends a greeting, then answers each request with the lines `answer` gives for it."""

    def __init__(self, answer: Callable[[dict[str, Any]], list[dict[str, Any]] | None]) -> None:
        here, self.there = socket.socketpair()
        self.here = here
        self.seen: list[dict[str, Any]] = []
        self.events: list[str] = []
        self.monitor = Monitor(here, threading.Condition(), lambda name, _: self.events.append(name))
        self.pump = Pump("test")
        self.pump.add(here, self.monitor.feed)
        self.pump.start()
        self.thread = threading.Thread(target=self.serve, args=(answer,))
        self.thread.start()

    def serve(self, answer: Callable[[dict[str, Any]], list[dict[str, Any]] | None]) -> None:
        with self.there, self.there.makefile("r") as file:
            self.there.sendall(GREETING.encode())
            for text in file:
                request = json.loads(text)
                self.seen.append(request)
                lines = answer(request)
                if lines is None:
                    return
                self.there.sendall("".join(json.dumps(line) + "\r\n" for line in lines).encode())

    def close(self) -> None:
        self.here.shutdown(socket.SHUT_WR)
        self.thread.join()
        self.pump.close()
        self.here.close()


def obliging(request: dict[str, Any]) -> list[dict[str, Any]] | None:
    number = request["id"]
    match request["execute"]:
        case "device_add":
            return [{"id": number, "error": {"class": "GenericError", "desc": "Bus 'rp9' not found"}}]
        case "device_del":
            unplugged = {"event": "DEVICE_DELETED", "data": {"device": "mem0", "path": "/x"}}
            return [{"event": "OTHER", "data": {}}, {"id": number, "return": {}}, unplugged]
        case "quit":
            return None
        case "late":
            return []
    return [{"id": number, "return": request["arguments"]}]


@pytest.fixture
def script() -> Iterator[Script]:
    one = Script(obliging)
    one.monitor.negotiate()
    yield one
    one.close()


def test_negotiates_first(script: Script) -> None:
    assert [request["execute"] for request in script.seen] == ["qmp_capabilities"]


def test_arguments_and_result(script: Script) -> None:
    assert script.monitor.execute("human-monitor-command", command_line="info mtree") == {
        "command-line": "info mtree"
    }


def test_refusal(script: Script) -> None:
    with pytest.raises(MonitorError, match=r"QEMU refused device_add: Bus 'rp9' not found"):
        script.monitor.execute("device_add", driver="x")


def test_event_after_the_reply(script: Script) -> None:
    since = len(script.monitor.events)
    script.monitor.execute("device_del", id="mem0")
    data = script.monitor.wait_event("DEVICE_DELETED", 10.0, since, lambda data: data["device"] == "mem0")
    assert data["path"] == "/x"
    assert script.events == ["OTHER", "DEVICE_DELETED"]


def test_hang_up(script: Script) -> None:
    with pytest.raises(MonitorError, match=r"QEMU ended before it could answer quit"):
        script.monitor.execute("quit")
    with pytest.raises(MonitorError):
        script.monitor.execute("query-status")


def test_no_answer(script: Script) -> None:
    with pytest.raises(MonitorError, match=r"QEMU did not answer late within 0\.01 seconds"):
        script.monitor.execute("late", timeout=0.01)


def test_nonsense_is_passed_over(script: Script) -> None:
    script.monitor.feed(b"not json\r\n[1, 2]\r\n{}\r\n")
    assert script.monitor.execute("query-status") == {}


def test_answers_of_many_threads_find_their_asker(script: Script) -> None:
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        answers[number] = script.monitor.execute("echo", value=number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: {"value": number} for number in range(8)}
