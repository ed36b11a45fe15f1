"""Guests on the fabric of a server: they come and go, and it stays."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from softcxl.lab.parts import Parts
from tests.kernel.conftest import EXAMPLES
from tests.kernel.test_vm_run import PATIENCE, PROGRAM

SOFTCXL = PROGRAM[:3]


def softcxl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SOFTCXL, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_one_guest_after_another(parts: Parts, tmp_path: Path) -> None:
    """Firmware's region is there for both, and for the server itself when they have gone."""
    address = f"unix:{tmp_path}/control"
    with subprocess.Popen(
        [*SOFTCXL, "serve", str(EXAMPLES / "firmware-region.yaml"), "--socket", address],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline().endswith(f"{address}\n")
            first = softcxl("vm", "run", address, "--json", "-q", "--", "cxl list -R")
            result = json.loads(first.stdout)
            assert (first.returncode, first.stderr) == (0, "")
            region = json.loads(result["stdout"])[0]
            assert (region["resource"], region["size"]) == (1 << 32, 512 << 20)
            assert all(one["reads"] > 0 for one in result["traffic"].values())
            second = softcxl("vm", "run", address, "-q", "--host", "alpha", "--", "exit 7")
            assert (second.returncode, second.stdout, second.stderr) == (7, "", "")
            # the doors have closed behind the guests: now the server may drive the host
            listed = softcxl("list", address, "-R")
            assert json.loads(listed.stdout)[0]["resource"] == 1 << 32
            third = softcxl("vm", "run", address, "-q", "--", "true")
            assert third.returncode == 1
            assert third.stderr == "softcxl: devices.mem0: is in use by a host in this process\n"
        finally:
            server.terminate()
    assert server.returncode == 0
