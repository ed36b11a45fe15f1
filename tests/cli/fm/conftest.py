"""`softcxl fm` at a switch of ours, and at an endpoint that answers from a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from softcxl.cli import main
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.type3 import Type3
from softcxl.switch.physical import PhysicalSwitch
from softcxl.transport.mctp import Endpoint, MctpTcpDoor, Send
from tests.fm.scripted import Scripts

GIB = 1 << 30
MIB = 1 << 20


@pytest.fixture
def switch() -> Iterator[PhysicalSwitch]:
    """Five ports: an MLD, a memory device, nothing, and the upstream ports of two virtual switches of two vPPBs."""
    switch = PhysicalSwitch("rack", ports=3, virtual=[("left", 2), ("right", 2)], serial=0x77)
    pool = MultiLogicalDevice(
        "pool", volatile=4 * GIB, persistent=0, logical_devices=[GIB, GIB, 0, 0], granularity=256 * MIB
    )
    switch.ports[0].insert(pool)
    switch.ports[1].insert(Type3("spare", volatile=GIB))
    yield switch
    switch.close()


@pytest.fixture
def rack(switch: PhysicalSwitch, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of that switch, which SOFTCXL_FM holds."""

    def opened(send: Send) -> Any:
        return switch.management(lambda request: send(0x0106, request.pack()))

    with MctpTcpDoor({8: Endpoint("rack", opened)}, port=0) as door:
        address = f"tcp:127.0.0.1:{door.address[1]}"
        monkeypatch.setenv("SOFTCXL_FM", address)
        yield address


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripts]:
    """An endpoint that answers from a table, at the address that SOFTCXL_FM holds."""
    scripts = Scripts({})
    with MctpTcpDoor({8: Endpoint("scripts", scripts.open)}, port=0) as door:
        monkeypatch.setenv("SOFTCXL_FM", f"tcp:127.0.0.1:{door.address[1]}")
        yield scripts


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `softcxl fm` with these arguments, and returns what it printed; a status other than 0 fails."""

    def go(*arguments: object) -> str:
        status = main(["fm", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out

    return go


@pytest.fixture
def ask(run: Callable[..., str]) -> Callable[..., Any]:
    """As `run`, with --json, and what that holds."""
    return lambda *arguments: json.loads(run(*arguments, "--json"))


@pytest.fixture
def fail(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs `softcxl fm`, and returns its status and its one sentence on stderr; nothing is on stdout."""

    def go(*arguments: object) -> tuple[int, str]:
        status = main(["fm", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("softcxl: ")
        assert err.count("\n") == 1
        return status, err.removeprefix("softcxl: ").rstrip("\n")

    return go
