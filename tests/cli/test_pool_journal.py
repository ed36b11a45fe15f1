"""What befalls a pool's memory is in the journal of the server that has it, and shown while it is mended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import softcxl
from softcxl.cli import main
from softcxl.cli.serve_pool import serve_pool
from softcxl.fabric.build import Fabric
from tests.pool.served import wait_until

TOPOLOGY = """
devices: {mem0: {volatile: 256MiB}, mem1: {volatile: 256MiB}}
pool: {memory: [mem0, mem1], arena: 16MiB}
"""


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Fabric]:
    path = tmp_path / "pool.yaml"
    path.write_text(TOPOLOGY)
    with Fabric.load(path, serves=True) as one:
        yield one


def test_a_failed_device_and_what_was_done_about_it_are_written_down(
    fabric: Fabric, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve_pool(fabric, tmp_path / "control") as address, softcxl.connect(address, name="model") as pool:
        region = pool.allocate("4MiB", name="weights", replicas=2)
        region.write(0, b"w" * 1000)
        fabric.devices["mem1"].inject.link_down()
        wait_until(lambda: pool.tell("rebuild")["waiting"])
        assert main(["pool", "--pool", address, "stat"]) == 0
        printed = capsys.readouterr().out
        why = "a copy more was asked for; all healthy devices (mem0) have one already"
        assert f"weights waits to be rebuilt: {why}" in " ".join(printed.split())
        assert main(["pool", "--pool", address, "stat", "--json"]) == 0
        ((waits),) = json.loads(capsys.readouterr().out)["rebuild"]["waiting"]
        assert waits == {"region": region.index, "name": "weights", "why": why}
        fabric.devices["mem1"].inject.link_up()
        wait_until(lambda: all(copy.healthy for copy in region.info.copies))
        assert region.read(0, 1000) == b"w" * 1000
    entries = [one for one in fabric.store.journal.since(0) if one.kind.startswith("pool-")]
    assert [(one.kind, one.subject) for one in entries if one.subject != "softcxl"] == [
        ("pool-client-came", "model"),
        ("pool-source-failed", "mem1"),
        ("pool-rebuild-waits", "weights"),
        ("pool-source-returned", "mem1"),
        ("pool-rebuild-began", "weights"),
        ("pool-rebuilt", "weights"),
        ("pool-client-gone", "model"),
    ]
