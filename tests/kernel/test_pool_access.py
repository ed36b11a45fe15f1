"""Two guests reach one pool by their pool access devices, with stock drivers and programs of their own."""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

import softcxl
from softcxl import Fabric, boot
from softcxl.fm.pool.guests import Guests
from softcxl.lab.parts import Parts
from softcxl.pool.layout import Plan
from softcxl.pool.native import Memory
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import UnbindOption
from tests.kernel.pooled import Pooled, python, serving
from tests.kernel.traces import until

MIB = 1 << 20
LEASE = 5.0  # seconds, in which an emulated guest on a busy machine has to be heard of
TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB}
  mem1: {volatile: 256MiB}
  alpha-door: {type: pool-access}
  beta-door: {type: pool-access}
pool: {memory: [mem0, mem1]}
hosts:
  alpha: {bridges: {hb0: {ports: [alpha-door]}}, memory: 768MiB}
  beta: {bridges: {hb0: {ports: [null, vcs0]}}, memory: 768MiB}
switches:
  rack: {ports: [null, beta-door], virtual: {vcs0: {ports: [beta-door, null]}}}
"""
PLAN = Plan(slots=64, regions=1 << 10, heap=16 * MIB)

WORD = """
import sys, time
from softcxl.pool.device import DeviceLink
from softcxl.pool.link import Place
from softcxl.pool.native import Memory
link = DeviceLink()
mapped = link.attach("ringer", Place())
arena = Memory(mapped.maps[0], ring=link.ring, rest=link.rest)
"""
"""What gives a program in a guest the arena, without the rest of a client."""

ADDED = 400_000
ADDS = f"""
import softcxl
from softcxl.pool.native import Memory
with softcxl.connect(name="adding") as pool:
    word = Memory(pool.open("sum").view())
    print("now")
    for _ in range({ADDED}):
        word.add(0, 1)
"""


@dataclass
class Rack(Pooled):
    """A pool, and its two guests."""

    fabric: Fabric


@pytest.fixture(scope="module")
def rack(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    folder = tmp_path_factory.mktemp("pool")
    with ExitStack() as stack:
        fabric, server, address = stack.enter_context(serving(folder, TOPOLOGY, PLAN, lease=LEASE))
        guests = Guests(server)
        for access in fabric.access.values():
            access.serve(guests)
            stack.callback(access.leave)
        machines = {
            name: stack.enter_context(boot(fabric, name, parts=parts, python=True)) for name in fabric.hosts
        }
        yield Rack(server, address, machines, fabric)


def futex_wait(memory: mmap.mmap, offset: int) -> bool:
    """Sleep on a word that is 0, a minute at most; whether somebody has woken us (futex(2))."""
    word = ctypes.c_uint32.from_buffer(memory, offset)
    minute = (ctypes.c_long * 2)(60, 0)
    call = ctypes.CDLL(None, use_errno=True).syscall
    return bool(call(202, ctypes.byref(word), 0, 0, minute, None, 0) == 0)


def test_the_kernel_finds_the_functions(rack: Rack) -> None:
    found = rack.guests["alpha"].output(
        "cd /sys/bus/pci/devices; for each in *; do"
        " [ $(cat $each/vendor) = 0x1e98 ] && echo ${each#*:} $(cat $each/device $each/class); done; true"
    )
    assert found.split("\n")[:-1] == ["0d:00.0 0x5c01 0x088000", "0d:00.1 0x5c02 0x058000"]
    sizes = rack.guests["alpha"].output("cd /sys/bus/pci/devices/0000:0d:00.1; stat -c %s resource[024]")
    assert sizes.split() == [str(one) for one in (1 << (PLAN.size - 1).bit_length(), 256 * MIB, 256 * MIB)]


def test_a_program_in_a_guest_and_one_on_the_host_share_a_region(rack: Rack) -> None:
    assert rack.share_a_region() == "device:0000:0d:00.0"


def test_what_guest_and_host_add_at_the_same_time_is_all_there(rack: Rack) -> None:
    """QEMU's emulation has atomic operations only in machines that may have more than one processor."""
    added, counting = 0, threading.Event()
    with softcxl.connect(rack.address, name="host") as pool, pool.allocate(64, name="sum") as region:
        word = Memory(region.view())
        hear: Callable[[bytes], None] = lambda text: counting.set()  # noqa: E731
        guest = threading.Thread(target=python, args=(rack.guests["alpha"], ADDS), kwargs={"said": hear})
        guest.start()
        assert counting.wait(120)
        while guest.is_alive():
            for _ in range(1000):
                word.add(0, 1)
            added += 1000
        assert word.load(0) - added == ADDED


def test_the_stock_driver_is_bound_and_hears_interrupts(rack: Rack) -> None:
    """A program that knows nothing but UIO: it enables a vector, and reads /dev/uio0."""
    word = PLAN.heap_at + 64 * 100
    vector = 1 + word // 64 % 31
    python(rack.guests["alpha"], WORD + f"link.rest({word}, 0)\nlink.close()\n")
    device = "/sys/bus/pci/devices/0000:0d:00.0"
    driver = rack.guests["alpha"].output(f"basename $(readlink {device}/driver)")
    assert driver == "uio_pci_generic\n"
    door = rack.fabric.open_doors["alpha-door"]
    before = door.traffic.interrupts

    def ring(text: bytes) -> None:
        if b"ready" in text:
            rack.server.ring(word)

    said = python(
        rack.guests["alpha"],
        f"""
import mmap, os
file = os.open("/dev/uio0", os.O_RDONLY)
config = os.open("{device}/config", os.O_RDWR)
registers = memoryview(mmap.mmap(os.open("{device}/resource0", os.O_RDWR), 4096)).cast("I")
registers[0x28 // 4] = 1 << {vector}
for _ in range(3):
    registers[0x24 // 4] = 1
    (upper,) = os.pread(config, 1, 5)
    os.pwrite(config, bytes([upper & ~4]), 5)
    print("ready")
    count = int.from_bytes(os.read(file, 4), "little")
    print("interrupt", registers[0x2C // 4] >> {vector} & 1)
""",
        said=ring,
    )
    assert said == "ready\ninterrupt 1\n" * 3
    assert door.traffic.interrupts - before >= 3


def test_the_doorbell_wakes_who_sleeps_on_the_host(rack: Rack) -> None:
    word = PLAN.heap_at + 64 * 200
    arena = mmap.mmap(rack.server.directory.fd, PLAN.size)
    woken: list[bool] = []
    sleeper = threading.Thread(target=lambda: woken.append(futex_wait(arena, word)))
    sleeper.start()
    while sleeper.is_alive():  # until it sleeps: a ring before that wakes nobody
        python(rack.guests["alpha"], WORD + f"link.ring({word})\nlink.close()\n")
        sleeper.join(0.2)
    assert woken == [True]


def test_two_guests_ring_each_other(rack: Rack) -> None:
    """Turns of a word: each waits, by interrupts, for the other's number, and rings with its own."""
    word, rounds = PLAN.heap_at + 64 * 300, 40
    rack.server.directory.memory.store(word, 0)

    def turns(first: int) -> str:
        return (
            WORD
            + f"""
began, slept = time.perf_counter(), 0
for number in range({first}, {rounds} * 2, 2):
    while arena.load({word}) != number:
        link.rest({word}, 1.0)
        slept += 1
    arena.store({word}, number + 1)
    link.ring({word})
print(round((time.perf_counter() - began) / {rounds} * 1e6), slept)
link.close()
"""
        )

    said: dict[str, str] = {}
    threads = [
        threading.Thread(target=lambda n=name, k=first: said.update({n: python(rack.guests[n], turns(k))}))
        for first, name in enumerate(rack.guests)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rack.server.directory.memory.load(word) == rounds * 2
    assert all(int(text.split()[1]) > 0 for text in said.values())


def test_a_program_that_is_killed_is_missed_within_a_lease(rack: Rack) -> None:
    guest = rack.guests["alpha"]
    guest.output(
        'python3 -c \'import softcxl, time; pool = softcxl.connect(name="victim");'
        " pool.allocate(4096); time.sleep(600)' >/dev/null 2>&1 </dev/null & echo $! >/tmp/victim"
    )
    rack.await_clients("alpha", ["victim"])
    guest.output("kill -9 $(cat /tmp/victim)")
    rack.await_clients("alpha", [])
    assert "victim" not in rack.server.names.values()


def test_a_guest_that_restarts_has_no_slots_any_more(rack: Rack) -> None:
    guest = rack.guests["beta"]
    guest.output(
        'python3 -c \'import softcxl, time; pools = [softcxl.connect(name=f"old{at}") for at in range(2)];'
        " time.sleep(600)' >/dev/null 2>&1 </dev/null &"
    )
    rack.await_clients("beta", ["old0", "old1"])
    guest.reboot()
    assert rack.clients("beta") == []
    said = python(
        guest, "import softcxl\nwith softcxl.connect(name='new') as pool: print(pool.tell('clients'))"
    )
    assert "'name': 'new'" in said


def test_the_slot_is_pulled_and_plugged_in_again(rack: Rack) -> None:
    """Whoever fences a guest takes all of the slot's functions."""
    guest = rack.guests["alpha"]
    guest.hot_remove("alpha-door")
    assert guest.output("ls /sys/bus/pci/devices").count("0000:0d:") == 0
    assert rack.fabric.open_doors.keys() == {"beta-door", "beta-door.1"}
    guest.hot_add("alpha-door")
    guest.output("until [ -e /sys/bus/pci/devices/0000:0d:00.1 ]; do usleep 20000; done", timeout=180)
    said = python(
        guest,
        "import softcxl\nwith softcxl.connect(name='again') as pool: print(pool.open('shared').read(4096, 14))",
    )
    assert said == "b'from the guest'\n"


def test_a_guest_is_fenced_by_an_unbind(rack: Rack) -> None:
    """The fabric manager takes the slot away, whatever the guest does, and may give it back."""
    guest, switch = rack.guests["beta"], rack.fabric.switches["rack"]
    guest.output(
        "python3 -c 'import softcxl, time; pool = softcxl.connect(name=\"fenced\"); time.sleep(600)'"
        " >/dev/null 2>&1 </dev/null &"
    )
    rack.await_clients("beta", ["fenced"])
    unbinding = switch.unbind(0, 0, UnbindOption.SURPRISE_HOT_REMOVE)
    rack.await_clients("beta", [])
    assert until(lambda: unbinding.code, lambda code: code is not None) is ReturnCode.SUCCESS
    here = "grep -l 0x1e98 /sys/bus/pci/devices/*/vendor | wc -l"
    assert guest.output(here) == "0\n"
    assert not any(name.startswith("beta-door") for name in rack.fabric.open_doors)
    switch.bind(0, 0, 1)
    guest.output(f"until [ $({here}) = 2 ]; do usleep 20000; done", timeout=180)


def test_a_guest_that_is_killed_has_no_slots_any_more(rack: Rack) -> None:
    rack.kill("beta")
