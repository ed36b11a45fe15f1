"""Scripts beside the door: what happens to a device comes from any thread, while its driver is at work."""

import struct
import threading
from concurrent.futures import ThreadPoolExecutor

from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import EventHeader, GeneralMediaEvent
from softcxl.testing.driver import Driver, Machine

EACH = 150


def together(*works):
    """Run every work in a thread of its own, started at once; raises what any of them raised."""
    gate = threading.Barrier(len(works))

    def run(work):
        gate.wait(300)
        work()

    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(run, work) for work in works]:
            done.result(500)


def test_no_event_is_lost_or_seen_twice(make):
    device, machine = make(interrupts="msix"), Machine()
    device.attach(machine)
    driver = Driver(device)
    driver.send(0x0103, b"\1\1\1\1")
    recorded = dict.fromkeys(list(EventLog)[:4], 0)
    seen: dict[EventLog, list[int]] = {log: [] for log in recorded}
    finished = threading.Event()

    def record(log):
        def work():
            for number in range(EACH):
                event = GeneralMediaEvent(header=EventHeader(related_handle=number + 1))
                while not device.record_event(log, event):
                    pass
                recorded[log] += 1

        return work

    def drain(log):
        count = None
        while count != 0:
            code, payload = driver.send(0x0100, bytes([log]))
            assert code == 0
            (count,) = struct.unpack_from("<H", payload, 0x14)
            records = [payload[at : at + 0x80] for at in range(0x20, len(payload), 0x80)]
            handles = [struct.unpack_from("<H", one, 0x14)[0] for one in records]
            seen[log] += [struct.unpack_from("<H", one, 0x16)[0] for one in records]
            if handles:
                request = struct.pack(f"<BBB3x{len(handles)}H", log, 0, len(handles), *handles)
                assert driver.send(0x0101, request) == (0, b"")

    def fetch():
        while not finished.is_set():
            for log in recorded:
                drain(log)

    def script():
        together(*(record(log) for log in recorded))
        finished.set()

    together(script, fetch)
    for log in recorded:
        drain(log)
    assert recorded == dict.fromkeys(recorded, EACH)
    for log, numbers in seen.items():
        assert numbers == list(range(1, EACH + 1)), log
    assert driver.read32(2, driver.capabilities[1][0]) == 0
    assert {vector for _, vector in machine.interrupts} == {1, 2, 3, 4}


def test_poison_from_many_threads_while_it_is_listed(make):
    device = make(poison_list_max=10000)
    driver = Driver(device)
    addresses = [[0x10000 * thread + 0x80 * number for number in range(EACH)] for thread in range(4)]
    running = threading.Event()
    running.set()

    def inject(mine):
        def work():
            for address in mine:
                assert device.inject_poison(address)

        return work

    def query():
        while running.is_set():
            code, payload = driver.send(0x4300, struct.pack("<QQ", 0, 8 << 20))
            assert code == 0
            found = [where & ~63 for where, _ in struct.iter_unpack("<QI4x", payload[0x20:])]
            assert found == sorted(set(found))
            device.set_health(life_used=len(found) % 50)
            assert driver.send(0x4200)[0] == 0

    def script():
        together(*(inject(mine) for mine in addresses))
        running.clear()

    together(script, query)
    assert len(device.poison.map) == 4 * EACH
    together(*(lambda mine=mine: [device.clear_poison(one) for one in mine] for mine in addresses))
    assert len(device.poison.map) == 0


def test_resets_beside_commands_and_commits(make, clock):
    device = make()
    driver = Driver(device)
    running = threading.Event()
    running.set()

    def work():
        for _ in range(EACH):
            code, _ = driver.send(0x4000)
            assert code in (0, 3)  # a reset between two of its accesses leaves opcode 0000h
            driver.commit(0, 1 << 32, 256 << 20)
            driver.decommit(0)
        running.clear()

    def reset():
        while running.is_set():
            device.reset()
            device.media_disabled = False

    together(work, reset)
    device.reset()
    assert device.decoders.mappings == []
    assert driver.send(0x4000)[0] == 0
    assert driver.commit(0, 1 << 32, 256 << 20)
