"""The shutdown state, and dirty shutdowns counted: over resets, a new start, and a process that is killed.

That is what Linux relies on: it sets the state dirty before a persistent region is used (drivers/cxl/pmem.c), and shows
the count in sysfs.
"""

import signal
import struct
import subprocess
import sys

import pytest

from softcxl import Fabric
from softcxl.device.persist import StateDamaged
from softcxl.spec.command.health import GET_HEALTH_INFO, GET_SHUTDOWN_STATE, SET_SHUTDOWN_STATE
from softcxl.testing.driver import Driver
from softcxl.wire import Reset

SUCCESS, INTERNAL = 0, 4
CLEAN, DIRTY = b"\0", b"\1"

USER = """
import sys
from softcxl import Fabric
from softcxl.testing.driver import Driver

with Fabric.loads(sys.argv[1]) as fabric:
    driver = Driver(fabric.devices["mem0"])
    fabric.devices["mem0"].space.write(300 << 20, b"kept")
    assert driver.send(0x4204, bytes([int(sys.argv[2])])) == (0, b"")
    print("ready", flush=True)
    sys.stdin.read()  # until it is killed, or told to end
"""


def count(driver):
    code, payload = driver.send(GET_HEALTH_INFO.opcode)
    assert code == SUCCESS
    return struct.unpack_from("<I", payload, 6)[0]


def shutdown_state(driver):
    return driver.send(GET_SHUTDOWN_STATE.opcode)


def test_power_that_goes_with_time_to_save(device, driver):
    driver.send(SET_SHUTDOWN_STATE.opcode, DIRTY)
    for kind in (Reset.FLR, Reset.HOT):
        device.reset(kind)
        assert shutdown_state(driver) == (SUCCESS, DIRTY)
    device.reset(Reset.COLD)
    assert shutdown_state(driver) == (SUCCESS, CLEAN)
    assert count(driver) == 0


def test_power_that_goes_without(device, driver):
    device.set_health(dirty_shutdown_count=7)
    device.shutdown.power_lost(saved=False)
    assert count(driver) == 7
    driver.send(SET_SHUTDOWN_STATE.opcode, DIRTY)
    device.shutdown.power_lost(saved=False)
    assert (count(driver), shutdown_state(driver)) == (8, (SUCCESS, CLEAN))


def test_a_state_that_cannot_be_kept_is_not_set(make, tmp_path, caplog):
    folder = tmp_path / "gone"
    folder.mkdir()
    device = make(state=folder / "mem0.state")
    driver = Driver(device)
    driver.send(SET_SHUTDOWN_STATE.opcode, DIRTY)
    (folder / "mem0.state").unlink()
    folder.rmdir()
    assert driver.send(SET_SHUTDOWN_STATE.opcode, CLEAN) == (INTERNAL, b"")
    assert shutdown_state(driver) == (SUCCESS, DIRTY)
    device.shutdown.close()
    assert "its next start will count a dirty shutdown" in caplog.text
    device.shutdown.state = 0  # nothing more to tell when it is closed


@pytest.mark.parametrize("section", [{}, {"dirty": True}, {"dirty": True, "count": "many"}])
def test_a_state_that_cannot_have_been(make, tmp_path, section):
    page = tmp_path / "mem0.state"
    make(state=page).page.put("shutdown", **section)
    with pytest.raises(StateDamaged, match="shutdown cannot have been"):
        make(state=page)


def test_a_process_that_is_killed(tmp_path):
    topology = f"{{state: {tmp_path}, devices: {{mem0: {{volatile: 256MiB, persistent: 256MiB}}}}}}"

    def run(state, *, kill):
        arguments = [sys.executable, "-c", USER, topology, str(state)]
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if kill:
                process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == (-signal.SIGKILL if kill else 0)

    def found():
        with Fabric.loads(topology) as fabric:
            device = fabric.devices["mem0"]
            assert device.space.read(300 << 20, 4) == b"kept"
            assert shutdown_state(Driver(device)) == (SUCCESS, CLEAN)
            return count(Driver(device))

    run(1, kill=False)
    assert found() == 0
    run(1, kill=True)
    assert found() == 1
    assert found() == 1
    run(0, kill=True)  # software had set it clean: nothing was lost
    assert found() == 1
    run(1, kill=True)
    run(1, kill=True)
    assert found() == 3
