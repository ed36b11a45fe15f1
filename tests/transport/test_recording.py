"""Logs of sessions: written by a door, replayed to a door. Two of them are of a real QEMU.

`recorded/qemu-11.1-*.log` were made by QEMU 11.1.3 (`-device vfio-user-pci`, TCG, 64 MiB, stopped at
power-on) and a qtest script: size the BAR, enable it, access it in 1, 4 and 8 bytes, switch MSI on, fire it,
let the device use guest memory, reset. In `mapped` the BAR is mappable and the memory a memfd; in `messages`
neither is, so that writes are posted and guest memory takes messages.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from softcxl.spec.vfio_user import Command
from softcxl.testing.vfio_client import Client, replay
from softcxl.transport.vfio_user import Door
from softcxl.transport.vfio_user.recording import DescriptorKind, Entry, EntryKind, Recorder, entries
from tests.transport.ports import BAR, QemuPort, ScratchPort

RECORDED = Path(__file__).parent / "recorded"


def test_entries_come_back_as_they_were(tmp_path: Path) -> None:
    written = [
        Entry(EntryKind.CONNECT),
        Entry(EntryKind.FROM_CLIENT, b"message", ((DescriptorKind.FILE, 4096), (DescriptorKind.EVENTFD, 0))),
        Entry(EntryKind.FROM_CLIENT, b"", None),
        Entry(EntryKind.TO_CLIENT, bytes(range(100))),
        Entry(EntryKind.DISCONNECT),
    ]
    recorder = Recorder(tmp_path / "log")
    for entry in written:
        recorder.add(entry)
    recorder.close()
    recorder.add(Entry(EntryKind.CONNECT))  # too late, and ignored
    assert list(entries(tmp_path / "log")) == written


def test_the_form_on_disk(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "log")
    recorder.add(Entry(EntryKind.FROM_CLIENT, b"abc", ((DescriptorKind.FILE, 0x1234),)))
    recorder.close()
    assert (tmp_path / "log").read_bytes() == (
        b"SCXLVFU1"
        + bytes.fromhex("0201000003000000 0100000000000000 3412000000000000".replace(" ", ""))
        + b"abc"
    )


def test_a_log_cut_short_ends_with_its_last_whole_entry(tmp_path: Path) -> None:
    log = tmp_path / "log"
    recorder = Recorder(log)
    recorder.add(Entry(EntryKind.CONNECT))
    recorder.add(Entry(EntryKind.FROM_CLIENT, b"message", ((DescriptorKind.FILE, 1),)))
    recorder.close()
    whole = log.read_bytes()
    for length in range(8, len(whole)):
        log.write_bytes(whole[:length])
        assert len(list(entries(log))) == (1 if length >= 16 else 0)


def test_a_file_that_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"something else")
    with pytest.raises(ValueError, match="no log"):
        list(entries(tmp_path / "log"))


def use_everything(client: Client, port: ScratchPort) -> None:
    """A session with a bit of everything."""
    client.negotiate()
    client.device_info()
    for index in range(9):
        described = client.region_info(index)
        if described.fd is not None:
            os.close(described.fd)
    event = os.eventfd(0)
    client.set_irqs(1, 0, 1, events=[event])
    client.set_irqs(2, 3, 2, events=[])
    os.close(event)
    client.dma_map(0x10000, 0x2000, sealed=True)
    client.dma_map(0x20000, 0x2000, shared=False)
    client.memory[0x20000].view[:8] = b"messages"
    client.write(BAR, 8, b"12345678", posted=True)
    client.read(BAR, 8, 8)
    client.read(BAR, 0x100, 8)
    client.write_multi([(BAR, 0, b"ab"), (7, 4, b"c")])
    with pytest.raises(OSError):
        client.read(5, 0, 1)
    client.dma_unmap(0x10000, 0x2000)
    client.reset()


def prepare(port: ScratchPort) -> ScratchPort:
    port.on_read[0x100] = lambda size: port.bus.dma_read(0x20000, size)  # type: ignore[union-attr]
    return port


def test_a_recorded_session_replays_without_differences(
    port: ScratchPort, path: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with Door(prepare(port), path, record=log) as door:
        for _ in range(2):
            with Client(path) as client:
                use_everything(client, port)
        with Client(path) as client:  # one that leaves in the middle, with too many descriptors
            client.negotiate()
            fds = [os.eventfd(0) for _ in range(20)]
            client.send(Command.DEVICE_SET_IRQS, bytes(20), fds)
            for fd in fds:
                os.close(fd)
            client.receive()
    fresh = ScratchPort()
    with Door(prepare(fresh), path) as other:
        result = replay(log, path)
    fresh.close()
    assert result.differences == []
    assert result.sent == door.traffic.messages + 2 * 2  # two answers a session: the probe's and the read's
    assert other.traffic == door.traffic
    assert fresh.calls == port.calls


def test_a_replay_reports_differences(port: ScratchPort, path: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Door(port, path, record=log), Client(path) as client:
        client.negotiate()
        client.read(7, 0, 4)
    port.config[2] = 0xAA
    with Door(port, path):
        result = replay(log, path)
    ((position, recorded, got),) = result.differences
    assert position == 4
    assert (recorded[-4:], got[-4:]) == (b"\x00\x01\x02\x03", b"\x00\x01\xaa\x03")


@pytest.mark.parametrize("name", ["mapped", "messages"])
def test_real_qemu(no_leaks: None, path: Path, name: str) -> None:
    port = QemuPort(mappable=name == "mapped")
    with Door(port, path) as door:
        result = replay(RECORDED / f"qemu-11.1-{name}.log", path)
        assert port.detached.wait(60)
        port.finish()
    port.close()
    assert result.differences == []
    assert (door.traffic.refused, door.traffic.faults, door.traffic.protocol_errors) == (0, 0, 0)
    assert door.traffic.resets == 2
    assert door.traffic.interrupts == 1
    # In the recording the file's memory was QEMU's and now is empty; messages bring what QEMU answered.
    assert port.fetched == b"een byte"
    direct = name == "mapped"
    assert (door.traffic.dma_direct, door.traffic.dma_messages) == ((2, 0) if direct else (0, 2))
