"""A state folder on a disk that is really full: changes are refused, nothing is there by half, all goes on later."""

import subprocess
import sys

import pytest

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]

PROGRAM = """
import os, subprocess, sys
from pathlib import Path
from softcxl.device.clock import ManualClock
from softcxl.fabric.build import Fabric
from softcxl.fabric.errors import SoftCXLError
from softcxl.switch.binding import BindingError
from softcxl.testing.driver import Driver

folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
(folder / "fabric.yaml").write_text('''
state: state
devices:
  pool: {type: mld, volatile: 1GiB, logical_devices: [256MiB, 256MiB, 0]}
  mem0: {volatile: 256MiB}
switches: {rack: {ports: [pool, mem0], virtual: {left: {ports: [pool.0, null]}}}}
''')

def load():
    return Fabric.load(folder / "fabric.yaml", clock=ManualClock())

def state(fabric):
    left = fabric.switches["rack"].virtual[0]
    return [str(one) for one in left.vppbs], sorted(fabric.mlds["pool"].logical), fabric.mlds["pool"].allocations.each

def passphrase(fabric):
    return Driver(fabric.devices["mem0"]).send(0x4501, b"\\1".ljust(64, b"\\0") + b"secret".ljust(32))[0]

with load() as fabric:
    before = state(fabric)
    with open(folder / "ballast", "wb") as ballast:
        try:
            while True:
                os.write(ballast.fileno(), bytes(512))
        except OSError as error:
            print(error.strerror)
    rack = fabric.switches["rack"]
    for refused in (
        lambda: rack.bind(0, 1, 0, 1),
        lambda: rack.unbind(0, 0),
        lambda: fabric.mlds["pool"].allocate({2: 256 << 20}),
    ):
        try:
            done = refused()
            print("done", done)
        except (BindingError, SoftCXLError) as error:
            print(type(error).__name__, error)
    print(passphrase(fabric))
    print(state(fabric) == before)
    (folder / "ballast").unlink()
    rack.bind(0, 1, 0, 1)
    fabric.mlds["pool"].allocate({2: 256 << 20})
    print(passphrase(fabric))
    after = state(fabric)
with load() as fabric:
    print(state(fabric) == after != before, fabric.devices["mem0"].security.locked, fabric.store.crashed)
"""


def test_a_full_disk(tmp_path):
    try:
        subprocess.run([*NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespace of one's own here")
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    full = f"{tmp_path}/state/fabric.db: no room is left on the disk"
    assert done.stdout.splitlines() == [
        "No space left on device",
        f"BindingError the change could not be written down: {full}",
        f"BindingError the change could not be written down: {full}",
        f"StateUnwritable {full}",
        "4",
        "True",
        "0",
        "True True False",
    ], done.stderr
    assert "Traceback" not in done.stderr
    assert f"command 4501h failed: {full}" in done.stderr
