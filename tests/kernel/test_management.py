"""What `cxl` asks of a device through the kernel: labels, health, alerts, partitions, and what each command costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from softcxl import Fabric, Type3
from softcxl.device.cci import Reply
from softcxl.spec.command.label import GetLsaRequest
from softcxl.spec.cxl.events import HealthStatus, MediaHealth
from tests.kernel.conftest import Linux
from tests.kernel.listing import check_listing

TOPOLOGY = """
devices:
  mem0: {volatile: 512MiB, persistent: 256MiB, label_storage: 128KiB, serial: 0xC0FFEE01}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0]}}
    windows: [{size: 1GiB, targets: [hb0]}]
"""
KIB, MIB = 1 << 10, 1 << 20
LABELS = 128 * KIB


def test_the_listing_field_by_field(guest: Linux) -> None:
    check_listing(guest, "test_management")


@pytest.fixture
def device(fabric: Fabric) -> Type3:
    return fabric.devices["mem0"]


@pytest.fixture
def commands(device: Type3, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The opcodes of the commands that the device is given from now on."""
    given: list[int] = []
    execute = device.cci.execute

    def noted(opcode: int, payload: bytes = b"") -> Reply:
        given.append(opcode)
        return execute(opcode, payload)

    monkeypatch.setattr(device.cci, "execute", noted)
    return given


@pytest.fixture
def unbound(guest: Linux) -> Iterator[None]:
    """Labels can be written while no driver uses them."""
    guest.sh("cxl disable-memdev mem0")
    yield
    guest.sh("cxl enable-memdev mem0")


# -- labels ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unbound")
def test_labels_are_written_read_and_zeroed(guest: Linux, device: Type3) -> None:
    written = bytes(range(256)) * (LABELS // 256 - 1) + b"the last 256 bytes".ljust(256, b".")
    guest.machine.output("cat > /tmp/labels", given=written)
    guest.sh("cxl write-labels -i /tmp/labels mem0")
    assert stored(device) == written
    assert guest.run("cxl read-labels mem0").stdout == written
    assert guest.run("cxl read-labels -O 4090 -s 12 mem0").stdout == written[4090:4102]
    guest.sh("printf middle > /tmp/few; cxl write-labels -i /tmp/few -O 65533 -s 6 mem0")
    changed = written[:65533] + b"middle" + written[65539:]
    assert stored(device) == changed
    guest.sh("cxl zero-labels mem0")
    assert stored(device) == bytes(LABELS)


@pytest.mark.usefixtures("unbound")
def test_labels_end_where_the_device_says(guest: Linux, device: Type3) -> None:
    assert guest.sh("cat /sys/bus/cxl/devices/mem0/label_storage_size").strip() == str(LABELS)
    assert guest.run(f"cxl read-labels -O {LABELS - 4} -s 8 mem0").status != 0
    guest.sh(f"printf more > /tmp/few; cxl write-labels -i /tmp/few -O {LABELS - 4} -s 4 mem0")
    assert stored(device)[-4:] == b"more"


def stored(device: Type3) -> bytes:
    with device.lock:
        pages = [
            device.labels.get_lsa(GetLsaRequest(offset=offset, length=4 * KIB)).data
            for offset in range(0, LABELS, 4 * KIB)
        ]
    return b"".join(pages)


# -- health and alerts -------------------------------------------------------------------------------------------


def health(guest: Linux) -> dict[str, Any]:
    found = guest.json("cxl list -m mem0 -H")[0]["health"]
    assert isinstance(found, dict)
    return found


def test_health_as_the_device_is(guest: Linux, device: Type3) -> None:
    well = health(guest)
    assert {key for key, value in well.items() if value is True} == {"media_normal"}
    assert {value for key, value in well.items() if key.startswith("ext_")} == {"normal"}
    device.set_health(
        health_status=int(HealthStatus.make(maintenance_needed=True, hardware_replacement_needed=True)),
        media_status=MediaHealth.ALL_DATA_LOSS_IMMINENT,
        life_used=76,
        device_temperature=-21,
        dirty_shutdown_count=70001,
        corrected_volatile_error_count=80002,
        corrected_persistent_error_count=3,
    )
    ill = health(guest)
    assert {key for key, value in ill.items() if value is True} == {
        "maintenance_needed",
        "hw_replacement_needed",
        "media_data_loss_imminent",
    }
    assert (ill["ext_life_used"], ill["ext_temperature"]) == ("critical", "critical")
    assert (ill["life_used_percent"], ill["dirty_shutdowns"]) == (76, 70001)
    assert ill["temperature"] == 0x10000 - 21  # cxl-cli 85 prints it without its sign
    assert (ill["volatile_errors"], ill["pmem_errors"]) == (80002, 3)
    device.set_health(
        health_status=0,
        media_status=MediaHealth.NORMAL,
        life_used=0,
        device_temperature=25,
        dirty_shutdown_count=0,
        corrected_volatile_error_count=0,
        corrected_persistent_error_count=0,
    )
    assert health(guest) == well


def test_an_alert_is_set_passed_and_taken_back(guest: Linux, device: Type3) -> None:
    guest.sh(
        "cxl set-alert-config --life-used-threshold=30 --life-used-alert=on"
        " --over-temperature-threshold=60 --over-temperature-alert=on mem0"
    )
    alerts = guest.json("cxl list -m mem0 -A")[0]["alert_config"]
    assert {key for key, value in alerts.items() if key.endswith("_valid") and value} == {
        "life_used_prog_warn_threshold_valid",
        "dev_over_temperature_prog_warn_threshold_valid",
    }
    assert alerts["life_used_prog_warn_threshold"] == 30
    assert alerts["dev_over_temperature_prog_warn_threshold"] == 60
    device.set_health(life_used=29, device_temperature=60)
    warned = health(guest)
    assert (warned["ext_life_used"], warned["ext_temperature"]) == ("normal", "warning")
    guest.sh("cxl set-alert-config --life-used-alert=off --over-temperature-alert=off mem0")
    assert health(guest)["ext_temperature"] == "normal"
    device.set_health(life_used=0, device_temperature=25)


def test_a_warning_above_the_critical_level_is_refused(guest: Linux, device: Type3) -> None:
    before = device.health.alerts.pack()
    refused = guest.run("cxl set-alert-config --life-used-threshold=80 --life-used-alert=on mem0")
    assert refused.status != 0
    assert device.health.alerts.pack() == before


def test_partitions_and_firmware(guest: Linux) -> None:
    found = guest.json("cxl list -m mem0 -IF")[0]
    assert found["partition_info"] == {
        "total_size": 768 * MIB,
        "volatile_only_size": 512 * MIB,
        "persistent_only_size": 256 * MIB,
        "partition_alignment_size": 0,
    }
    assert found["firmware"]["slot_1_version"] == found["firmware_version"] == Type3.fw_revision


# -- what it costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "opcodes"),
    [
        ("cxl list -m mem0 -H", [0x4200]),
        ("cxl list -m mem0 -A", [0x4201]),
        ("cxl read-labels mem0", [0x4102] * 33),
    ],
)
def test_a_command_takes_three_traps_whatever_it_carries(
    guest: Linux, fabric: Fabric, commands: list[int], line: str, opcodes: list[int]
) -> None:
    traffic = fabric.open_doors["mem0"].traffic
    before = traffic.reads, traffic.writes, traffic.read_bytes, traffic.written_bytes
    guest.sh(f"{line} >/dev/null")
    after = traffic.reads, traffic.writes, traffic.read_bytes, traffic.written_bytes
    count = len(opcodes)
    assert commands == opcodes
    # the doorbell is read before, rung, and read after: command, payload and status are memory of the guest's
    assert [new - old for old, new in zip(before, after, strict=True)] == [
        2 * count,
        count,
        8 * count,
        4 * count,
    ]
