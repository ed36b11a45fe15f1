"""What Linux shows in /sys for the topology that the host in this process is compared by is still what is kept.

With SOFTCXL_GOLDEN=keep in the environment it is kept anew. Look at what changed before you commit it.
"""

from __future__ import annotations

import json
import os

import pytest

from tests.host.attributes import DUMP, GOLDEN, TOPOLOGY, comparable, parsed
from tests.kernel.conftest import Linux

__all__ = ["TOPOLOGY"]

UUID = "0a0b0c0d-0102-4304-8506-0708090a0b0c"


def test_sysfs_is_what_is_kept(guest: Linux) -> None:
    states = {"found": _dump(guest)}
    guest.create_region(["mem0", "mem2"], decoder="decoder0.1", granularity=1024)
    states["ram"] = _dump(guest)
    guest.sh("echo offline > /sys/devices/system/memory/memory43/state")
    states["offline"] = _dump(guest)
    guest.sh(
        "daxctl offline-memory dax0.0; daxctl reconfigure-device -m devdax -f dax0.0; cxl destroy-region -f all"
    )
    guest.create_region(["mem0", "mem1"], type="pmem", more=f"-U {UUID}")
    states["pmem"] = _dump(guest)
    linux = guest.machine.release.split("-")[0].rpartition(".")[0]
    if os.environ.get("SOFTCXL_GOLDEN") == "keep":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps({"linux": linux, "states": states}, indent=1) + "\n")
    kept = json.loads(GOLDEN.read_text())
    if kept["linux"] != linux:
        pytest.skip(
            f"kept from Linux {kept['linux']}, and this is {linux}: attributes come and go with versions"
        )
    for name, state in states.items():
        assert state == kept["states"][name], name


def _dump(guest: Linux) -> dict[str, str]:
    return comparable(parsed(guest.sh(DUMP)))
