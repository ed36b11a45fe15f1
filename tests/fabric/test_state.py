"""What devices remember beside their media, over the end of the process."""

import signal
import subprocess
import sys

import pytest

from softcxl import Fabric
from softcxl.fabric.errors import BuildError, TopologyError
from softcxl.spec.command.memory import SET_PARTITION_INFO
from softcxl.spec.command.security import SET_PASSPHRASE, UNLOCK
from softcxl.testing.driver import Driver

PASSPHRASE = b"open, sesame".ljust(32)


def topology(folder, device="volatile: 256MiB, persistent: 256MiB"):
    return f"""
        state: {folder}
        devices: {{mem0: {{{device}}}}}
        hosts:
          alpha: {{bridges: {{hb0: {{ports: [mem0]}}}}, windows: [{{size: 512MiB, targets: [hb0]}}]}}
        """


def test_a_locked_device_comes_up_without_its_regions(tmp_path):
    text = topology(tmp_path / "state")
    with Fabric.loads(text) as fabric:
        region = fabric.hosts["alpha"].boot().create_region(["mem0"], type="pmem")
        region.write(0, b"secret")
        request = b"\1" + bytes(31) + bytes(32) + PASSPHRASE
        assert Driver(fabric.devices["mem0"]).send(SET_PASSPHRASE.opcode, request) == (0, b"")
    with Fabric.loads(text) as fabric:
        driver = Driver(fabric.devices["mem0"])
        assert fabric.hosts["alpha"].boot().regions == {}
        assert driver.send(UNLOCK.opcode, PASSPHRASE) == (0, b"")
        (region,) = fabric.hosts["alpha"].boot().regions.values()
        assert region.read(0, 6) == b"secret"


def test_the_page_of_a_volatile_device_is_in_the_state_folder(tmp_path):
    text = topology(tmp_path / "state", "volatile: 256MiB")
    with Fabric.loads(text) as fabric:
        Driver(fabric.devices["mem0"]).send(SET_PASSPHRASE.opcode, b"\1" + bytes(63) + PASSPHRASE)
    assert list((tmp_path / "state").glob("mem0*")) == []
    assert (tmp_path / "state" / "fabric.db").exists()
    with Fabric.loads(text) as fabric:
        assert fabric.devices["mem0"].security.locked


def test_a_page_in_a_file_is_taken_over_once(tmp_path):
    """Earlier versions kept each device's page beside its medium."""
    (tmp_path / "mem0.mem.state").write_text(
        '{"format": 1, "sections": {"shutdown": {"dirty": false, "count": 7}}}\n'
    )
    with Fabric.loads(topology(tmp_path)) as fabric:
        assert fabric.devices["mem0"].health.info.dirty_shutdown_count == 7
        assert not (tmp_path / "mem0.mem.state").exists()
    with Fabric.loads(topology(tmp_path)) as fabric:
        assert fabric.devices["mem0"].health.info.dirty_shutdown_count == 7


def test_a_file_without_a_state_folder_has_its_page_beside_it(tmp_path):
    text = topology(tmp_path, f"persistent: 256MiB, file: {tmp_path}/mem0.mem").replace("state:", "# state:")
    with Fabric.loads(text) as fabric:
        Driver(fabric.devices["mem0"]).send(SET_PASSPHRASE.opcode, b"\1" + bytes(63) + PASSPHRASE)
    assert (tmp_path / "mem0.mem.state").exists()
    assert not (tmp_path / "fabric.db").exists()
    with Fabric.loads(text) as fabric:
        assert fabric.devices["mem0"].security.locked


def test_a_damaged_page_is_told_by_device_and_file(tmp_path):
    (tmp_path / "mem0.mem.state").write_text("{")
    with pytest.raises(BuildError, match=r"devices\.mem0: .*mem0\.mem\.state: not the state of a device"):
        Fabric.loads(topology(tmp_path))


def test_capacity_that_was_moved_stays_so(tmp_path):
    """All volatile from the factory; half of it becomes persistent when power comes, and keeps what it is given."""
    text = topology(tmp_path / "state", "volatile: 512MiB, partition_alignment: 256MiB")
    with Fabric.loads(text) as fabric:
        device = fabric.devices["mem0"]
        assert device.labels.size == 128 << 10
        assert Driver(device).send(SET_PARTITION_INFO.opcode, b"\1".ljust(9, b"\0")) == (0, b"")
    with Fabric.loads(text) as fabric:
        region = fabric.hosts["alpha"].boot().create_region(["mem0"], type="pmem")
        region.write(0, b"kept")
        assert region.size == 256 << 20
    with Fabric.loads(text) as fabric:
        (region,) = fabric.hosts["alpha"].boot().regions.values()
        assert region.read(0, 4) == b"kept"
        assert Driver(fabric.devices["mem0"]).send(SET_PARTITION_INFO.opcode, b"\0" * 9) == (0, b"")
    with Fabric.loads(text) as fabric:
        assert fabric.devices["mem0"].space.read(256 << 20, 4) == bytes(4)


def test_partitions_that_do_not_fit_their_alignment():
    with pytest.raises(TopologyError, match="256MiB is no multiple of `partition_alignment`, 512MiB"):
        Fabric.loads(topology("state", "volatile: 256MiB, persistent: 512MiB, partition_alignment: 512MiB"))


SHARED = """
state: {folder}
devices:
  pool:
    type: mld
    volatile: 1GiB
    persistent: 1GiB
    on_unbind: keep
    logical_devices: [{{persistent: 256MiB}}, 256MiB, 0]
switches:
  rack: {{ports: [pool], virtual: {{left: {{ports: [null, null]}}, right: {{ports: [null]}}}}}}
hosts:
  a: {{bridges: {{h: {{ports: [left]}}}}, windows: [{{size: 1GiB, targets: [h]}}]}}
  b: {{bridges: {{h: {{ports: [right]}}}}, windows: [{{size: 1GiB, targets: [h]}}]}}
"""
KILLED = """
import os, signal, sys
from softcxl import Fabric
fabric = Fabric.loads(sys.argv[1])
rack, hosts = fabric.switches["rack"], fabric.hosts
exec(sys.argv[2])
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(text, code):
    """A process that does this, and dies of kill -9; what it has printed."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, text, code], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout


def test_memory_of_a_bound_logical_device_after_kill_9(tmp_path):
    """Its persistent region comes back to its host, as it rests in a file of the host's window; unbound, it goes to
    another host. Volatile memory is as after a loss of power."""
    text = SHARED.format(folder=tmp_path)
    killed(
        text,
        "rack.bind(0, 0, 0, 0); rack.bind(0, 1, 0, 1); host = hosts['a'].boot()\n"
        "host.create_region(type='pmem').write(0, b'kept'); host.create_region(type='ram').write(0, b'lost')",
    )
    found = killed(
        text,
        "host = hosts['a'].boot(); print([one.read(0, 4) for one in host.regions.values()])\n"
        "print(host.create_region(type='ram').read(0, 4))",
    )
    assert found.splitlines() == ["[b'kept']", repr(bytes(4))]
    assert killed(text, "print(rack.unbind(0, 0).code.name); rack.bind(1, 0, 0, 0)") == "SUCCESS\n"
    with Fabric.loads(text) as fabric:
        assert list(fabric.hosts["a"].bound) == ["pool.1"]
        assert list(fabric.hosts["b"].bound) == ["pool.0"]
        (region,) = fabric.hosts["b"].boot().regions.values()
        assert region.read(0, 4) == b"kept"


def test_another_division_of_a_device_over_the_same_state(tmp_path):
    """How it is divided the folder says, after the first time; what does not fit the device is refused, and kept."""

    def text(volatile, logical_devices):
        pool = f"{{type: mld, volatile: {volatile}, logical_devices: {logical_devices}}}"
        return f"state: {tmp_path}\ndevices: {{pool: {pool}}}\n"

    with Fabric.loads(text("2GiB", "[256MiB, 256MiB, 0]")) as fabric:
        fabric.mlds["pool"].allocate({2: 1 << 30})
    for volatile, logical_devices, says in (
        ("1GiB", "[0, 0, 0]", "the device has 0x40000000"),
        ("2GiB", "[0, 0, 0, 0]", "3 logical devices, not 4"),
        ("2GiB", "[0, 0]", "3 logical devices, not 2"),
    ):
        with pytest.raises(BuildError, match=rf"devices\.pool: .*allocations cannot have been: .*{says}"):
            Fabric.loads(text(volatile, logical_devices))
    for volatile in ("2GiB", "4GiB"):
        with Fabric.loads(text(volatile, "[0, 0, 0]")) as fabric:
            assert [one.volatile >> 20 for one in fabric.mlds["pool"].allocations.each] == [256, 256, 1024]
