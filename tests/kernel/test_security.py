"""Passphrases of persistent memory, as `ndctl` and libnvdimm use them: with keys of the kernel's, over power cycles.

libnvdimm tries the key that it has for a device at every probe: Unlock where the device is locked, and Set Passphrase
with twice the same where it is not (drivers/nvdimm/security.c). Words and states are the kernel's.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from softcxl import Fabric, Type3
from softcxl.spec.command.security import UNLOCK, UnlockRequest
from tests.kernel.conftest import Linux

TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, persistent: 256MiB, label_storage: 128KiB, serial: 0xC0FFEE01}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0]}}
    windows: [{size: 1GiB, targets: [hb0]}]
"""
KERNEL = "own"
MIB = 1 << 20
SERIAL = 0xC0FFEE01
USER_KEY, MASTER_KEY = f"nvdimm:{SERIAL}", f"nvdimm-master:{SERIAL}"
KEK = "-k user:nvdimm-master"
DATA = b"kept or gone"
AT = 256 * MIB + 0x3000
"""A DPA of the persistent partition."""


@pytest.fixture(scope="module", autouse=True)
def keyring(guest: Linux) -> None:
    """What `ndctl` encrypts passphrases with, and where it keeps them."""
    guest.sh("mkdir -p /etc/ndctl/keys; softcxl-key add user nvdimm-master 0123456789abcdef0123456789abcdef")


@pytest.fixture
def device(guest: Linux, fabric: Fabric) -> Iterator[Type3]:
    """The device, without passphrases before and after, with DATA at AT."""
    device = fabric.devices["mem0"]
    device.space.write(AT, DATA)
    yield device
    if device.security.frozen or device.security.locked:
        guest.power_cycle(device)
    for key, option in ((USER_KEY, ""), (MASTER_KEY, "-m")):
        guest.run(f"ndctl remove-passphrase {option} nmem0")
        guest.run(f"softcxl-key forget $(softcxl-key find encrypted {key})")
    guest.sh("rm -f /etc/ndctl/keys/*")
    assert int(device.security.state) == 0


def nmem(guest: Linux) -> str:
    """The security of the only DIMM, and whether it is frozen, as sysfs has them."""
    return " ".join(guest.sh("cd /sys/bus/nd/devices/nmem*; cat security frozen").split())


def forget(guest: Linux, key: str = USER_KEY) -> None:
    """Take a key out of the kernel's keyring; its file stays."""
    guest.sh(f"softcxl-key forget $(softcxl-key find encrypted {key})")


def another_key(guest: Linux, length: int = 32) -> str:
    """The number of a key that is not the device's."""
    return guest.sh(f"softcxl-key add encrypted other 'new enc32 user:nvdimm-master {length}'").strip()


def security(guest: Linux, line: str) -> int:
    """Write to the DIMM's `security`; returns the status."""
    return guest.run(f"echo {line} > /sys/bus/nd/devices/nmem0/security").status


def test_a_passphrase_is_set_changed_and_removed(guest: Linux, device: Type3) -> None:
    assert nmem(guest) == "disabled 0"
    guest.sh(f"ndctl setup-passphrase nmem0 {KEK}")
    assert nmem(guest) == "unlocked 0"
    assert device.security.state.user_passphrase_set
    guest.sh(f"ndctl update-passphrase nmem0 {KEK}")
    assert nmem(guest) == "unlocked 0"
    guest.sh("ndctl remove-passphrase nmem0")
    assert nmem(guest) == "disabled 0"
    assert not device.security.state.user_passphrase_set
    assert device.space.read(AT, len(DATA)) == DATA


def test_with_its_key_a_device_is_unlocked_as_the_kernel_finds_it(
    guest: Linux, device: Type3, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.sh(f"ndctl setup-passphrase nmem0 {KEK}")
    unlock, states = device.security.unlock, []

    def noted(request: UnlockRequest) -> None:
        states.append(device.security.locked)
        unlock(request)
        states.append(device.security.locked)

    monkeypatch.setitem(device.cci.handlers, UNLOCK.opcode, (UNLOCK, noted))
    guest.power_cycle(device)
    assert states == [True, False]
    assert nmem(guest) == "unlocked 0"
    assert device.space.read(AT, len(DATA)) == DATA


def test_without_its_key_a_device_stays_locked_until_it_is_loaded(guest: Linux, device: Type3) -> None:
    guest.sh(f"ndctl setup-passphrase nmem0 {KEK}")
    forget(guest)
    guest.power_cycle(device)
    assert nmem(guest) == "locked 0"
    assert guest.json("ndctl list -D -d nmem0 -i")[0]["security"] == "locked"
    assert "firmware status: 7" in guest.run("cxl read-labels -s 16 mem0").stderr.decode()  # media disabled
    guest.sh("ndctl load-keys -p /etc/ndctl/keys && ndctl enable-dimm nmem0")
    assert nmem(guest) == "unlocked 0"
    assert len(guest.run("cxl read-labels -s 16 mem0").stdout) == 16
    assert device.space.read(AT, len(DATA)) == DATA


def test_a_wrong_key_is_refused_and_the_third_is_the_last_one(guest: Linux, device: Type3) -> None:
    guest.sh(f"ndctl setup-passphrase nmem0 {KEK}")
    wrong, right = another_key(guest), guest.sh(f"softcxl-key find encrypted {USER_KEY}").strip()
    assert security(guest, f"disable {wrong}") != 0
    assert nmem(guest) == "unlocked 0"
    assert security(guest, f"update {right} {right}") == 0  # the count begins again
    for _ in range(3):
        assert nmem(guest) == "unlocked 0"
        assert security(guest, f"disable {wrong}") != 0
    assert device.security.state.user_attempts_reached
    assert nmem(guest) == "unlocked 1"
    assert security(guest, f"disable {right}") != 0
    guest.power_cycle(device)
    assert nmem(guest) == "unlocked 0"
    assert security(guest, f"disable {right}") == 0


def test_what_is_frozen_changes_only_after_a_power_cycle(guest: Linux, device: Type3) -> None:
    guest.sh(f"ndctl setup-passphrase nmem0 {KEK}")
    guest.sh("ndctl freeze-security nmem0")
    assert nmem(guest) == "unlocked 1"
    right = guest.sh(f"softcxl-key find encrypted {USER_KEY}").strip()
    for line in (f"disable {right}", f"update {right} {right}", f"erase {right}"):
        assert security(guest, line) != 0
    assert device.security.state.user_passphrase_set
    guest.power_cycle(device)
    assert nmem(guest) == "unlocked 0"


def test_an_erasure_by_passphrase_takes_data_and_passphrase(guest: Linux, device: Type3) -> None:
    device.space.write(0x1000, DATA)
    guest.sh(f"ndctl setup-passphrase nmem0 {KEK}")
    guest.sh("ndctl disable-dimm nmem0 && ndctl sanitize-dimm --crypto-erase nmem0")
    assert nmem(guest) == "disabled 0"
    assert device.space.read(AT, len(DATA)) == bytes(len(DATA))
    assert device.space.read(0x1000, len(DATA)) == DATA  # volatile: no passphrase protects it
    guest.sh("ndctl enable-dimm nmem0")


def test_the_master_passphrase_erases_where_the_users_is_lost(guest: Linux, device: Type3) -> None:
    guest.sh(f"ndctl setup-passphrase -m nmem0 {KEK}")
    assert device.security.state.master_passphrase_set
    assert nmem(guest) == "disabled 0"
    guest.sh(f"ndctl setup-passphrase nmem0 {KEK}")
    master = guest.sh(f"softcxl-key find encrypted {MASTER_KEY}").strip()
    assert security(guest, f"master_update {master} {master}") != 0  # only while there is no user passphrase
    forget(guest)
    guest.sh("rm /etc/ndctl/keys/nvdimm_*")
    guest.power_cycle(device)
    assert nmem(guest) == "locked 0"
    guest.sh("ndctl sanitize-dimm --crypto-erase --master-passphrase nmem0")
    assert nmem(guest) == "disabled 0"
    assert device.space.read(AT, len(DATA)) == bytes(len(DATA))
    assert device.security.state.master_passphrase_set


def test_sanitize_and_erase_are_refused_while_there_is_a_passphrase(guest: Linux, device: Type3) -> None:
    guest.sh(f"ndctl setup-passphrase nmem0 {KEK}")
    for name in ("sanitize", "erase"):
        assert guest.run(f"echo 1 > /sys/bus/cxl/devices/mem0/security/{name}").status != 0
    assert guest.sh("cat /sys/bus/cxl/devices/mem0/security/state").strip() == "unlocked"
    assert device.space.read(AT, len(DATA)) == DATA


def test_an_overwrite_is_not_there_for_cxl(guest: Linux, device: Type3) -> None:
    guest.sh(f"ndctl setup-passphrase nmem0 {KEK}")
    assert guest.run("ndctl sanitize-dimm --overwrite nmem0").status != 0
    assert nmem(guest) == "unlocked 0"
