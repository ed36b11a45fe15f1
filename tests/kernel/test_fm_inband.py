"""A guest manages the switch above it, in band: it finds the mailbox CCI, and binds by it what it then finds."""

from __future__ import annotations

import struct

import pytest

from softcxl import Fabric
from tests.kernel.conftest import Linux

TOPOLOGY = """
devices:
  spare: {volatile: 256MiB, serial: 7}
  pool: {type: mld, volatile: 1GiB, logical_devices: [256MiB, 0], serial: 0x900}
  cci: {type: switch-cci, switch: rack}
  other: {type: switch-cci, switch: rack}
switches:
  rack: {serial: 0xABCD, ports: [spare, pool, null], virtual: {left: {ports: [null, null]}, right: {ports: [null]}}}
hosts:
  alpha: {bridges: {hb0: {ports: [left, cci, null]}}, windows: [{size: 512MiB, targets: [hb0]}]}
"""
SUCCESS, STARTED, INVALID_INPUT, UNSUPPORTED, LENGTH = 0, 1, 2, 3, 0x16
CLASS = "0x0c0b00"
VENDOR, SERIAL_NUMBER = 0x1E98, 3
BACKGROUND_DONE = "c800"


@pytest.fixture(scope="module")
def cci(guest: Linux) -> str:
    """The function's folder in the guest's sysfs."""
    return guest.sh(f"dirname $(grep -l {CLASS} /sys/bus/pci/devices/*/class)").strip()


def ask(guest: Linux, cci: str, opcode: int, payload: bytes = b"") -> tuple[int, bytes]:
    """Give a command through the mailbox; its return code and answer."""
    words = guest.sh(f"softcxl-cci {cci} {opcode:#x} {payload.hex()}").split()
    return int(words[0]), bytes.fromhex(words[1]) if len(words) > 1 else b""


def finished(guest: Linux, cci: str, opcode: int) -> None:
    """Wait for the end of a background operation, as a program there would; it succeeded."""
    done = struct.pack("<BBHHH", 200, 0, opcode, 0, 0).hex()
    guest.sh(f"until softcxl-cci {cci} 2 | grep -qx '0 {done}'; do usleep 10000; done", timeout=180)


def test_linux_finds_the_function(guest: Linux, cci: str) -> None:
    """One, with the switch's serial number (Linux: pci_get_dsn, capability 3 of the extended ones), and no driver."""
    assert "\n" not in cci
    assert guest.sh(f"cat {cci}/vendor").strip() == f"{VENDOR:#06x}"
    config = bytes.fromhex(guest.sh(f"hexdump -v -e '1/1 \"%02x\"' {cci}/config"))
    assert len(config) == 4096
    at = 0x100
    while struct.unpack_from("<H", config, at)[0] != SERIAL_NUMBER:
        at = struct.unpack_from("<I", config, at)[0] >> 20
        assert at
    assert struct.unpack_from("<Q", config, at + 4) == (0xABCD,)
    assert guest.run(f"[ -e {cci}/driver ]").status == 1
    assert guest.sh(f"stat -c %s {cci}/resource2").strip() == "65536"


def test_identify_switch_device(guest: Linux, cci: str) -> None:
    code, answer = ask(guest, cci, 0x5100)
    assert (code, len(answer), answer[2:4]) == (SUCCESS, 0x49, bytes([5, 2]))
    code, answer = ask(guest, cci, 0x0001)
    assert (code, answer[8:16]) == (SUCCESS, (0xABCD).to_bytes(8, "little"))


def test_return_codes(guest: Linux, cci: str) -> None:
    assert ask(guest, cci, 0xC000) == (UNSUPPORTED, b"")
    assert ask(guest, cci, 0x0105, bytes(2)) == (UNSUPPORTED, b"")  # of messages alone
    assert ask(guest, cci, 0x5201, bytes(3)) == (LENGTH, b"")
    assert ask(guest, cci, 0x5201, bytes([9, 0, 0, 0, 0xFF, 0xFF])) == (INVALID_INPUT, b"")


def test_a_logical_device_that_is_bound_arrives_and_goes(guest: Linux, fabric: Fabric, cci: str) -> None:
    assert guest.json("cxl list -M -i") == []
    assert ask(guest, cci, 0x5201, struct.pack("<BBBxH", 0, 0, 1, 0)) == (STARTED, b"")
    finished(guest, cci, 0x5201)
    guest.sh("until cxl list -M | grep -q memdev; do usleep 20000; done", timeout=180)
    (found,) = guest.json("cxl list -M")
    assert found["ram_size"] == 256 << 20
    assert fabric.virtual["left"].vppbs[0].function is fabric.devices["pool.0"]
    assert ask(guest, cci, 0x5202, bytes([0, 0, 1])) == (STARTED, b"")
    finished(guest, cci, 0x5202)
    assert guest.json("cxl list -M -i") == []
    assert fabric.virtual["left"].vppbs[0].function is None


def test_the_function_that_is_removed_and_found_again_goes_on(guest: Linux, cci: str) -> None:
    guest.sh(f"echo 1 > {cci}/remove && echo 1 > /sys/bus/pci/rescan")
    assert ask(guest, cci, 0x5100)[0] == SUCCESS
    guest.sh(f"echo 1 > {cci}/reset")
    assert ask(guest, cci, 0x5100)[0] == SUCCESS


def test_another_one_comes_and_goes(guest: Linux, fabric: Fabric, cci: str) -> None:
    """Plugged into an empty port while the guest runs; both are of the same switch."""
    count = f"grep -l {CLASS} /sys/bus/pci/devices/*/class | wc -l"
    guest.machine.hot_add("other")
    guest.sh(f"until [ $({count}) = 2 ]; do usleep 20000; done", timeout=180)
    files = guest.sh(f"grep -l {CLASS} /sys/bus/pci/devices/*/class").split()
    (other,) = {one.removesuffix("/class") for one in files} - {cci}
    (code, identity), (_, same) = ask(guest, other, 0x5100), ask(guest, cci, 0x5100)
    # but for the port that the request came by: the topology has the first one below the switch, the other nowhere
    assert (code, identity[1:]) == (SUCCESS, same[1:])
    assert ask(guest, other, 0x5201, struct.pack("<BBBxH", 1, 0, 0, 0xFFFF)) == (STARTED, b"")
    finished(guest, other, 0x5201)
    assert ask(guest, cci, 0x5202, bytes([1, 0, 2])) == (STARTED, b"")  # nobody is there
    finished(guest, cci, 0x5202)
    guest.machine.hot_remove("other")
    guest.sh(f"until [ $({count}) = 1 ]; do usleep 20000; done", timeout=180)
    assert ask(guest, cci, 0x5100)[0] == SUCCESS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("/sys/bus/pci/devices/0000:00:00.0 1", "does not locate these registers"),
        ("/nowhere 1", "cannot be read"),
        ("/nowhere", "usage: FOLDER OPCODE"),
        ("/nowhere 1 7", "not of whole bytes"),
    ],
)
def test_wrong_usage(guest: Linux, words: str, said: str) -> None:
    result = guest.run(f"softcxl-cci {words}")
    assert result.status == 2
    assert said in result.stderr.decode()
