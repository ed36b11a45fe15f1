"""A topology for a command: its file, or the address of a server that has it live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from softcxl.cli.verbs import VERBS
from softcxl.fabric.build import Fabric
from softcxl.fabric.control import Service
from softcxl.fabric.hosts import Hosts
from softcxl.transport.control import Door


@pytest.fixture(params=["file", "server"])
def given(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """From a topology's text to what a command takes for it."""
    with ExitStack() as stack:

        def topology(text: str) -> str:
            path = tmp_path / "fabric.yaml"
            path.write_text(text)
            if request.param == "file":
                return str(path)
            hosts = Hosts(stack.enter_context(Fabric.load(path)), str(path), tmp_path)
            door = stack.enter_context(Door(Service(hosts, VERBS), tmp_path / "control"))
            return f"unix:{door.path}"

        yield topology
