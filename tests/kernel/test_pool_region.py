"""Two guests reach one pool by CXL regions of it, which stock Linux makes and programs map as device DAX."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from softcxl import boot
from softcxl.fm.pool.front import Front
from softcxl.fm.pool.guests import Guests
from softcxl.lab.parts import Parts
from softcxl.pool.layout import Plan
from softcxl.pool.session import connect
from tests.kernel.pooled import Pooled, python, serving

MIB = 1 << 20
TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB}
  mem1: {volatile: 256MiB}
  way-a: {type: pool-memory}
  way-b: {type: pool-memory}
pool: {memory: [mem0, mem1], arena: 32MiB}
switches: {rack: {ports: [null, way-b]}}
hosts:
  alpha:
    bridges: {hb0: {ports: [way-a, null]}}
    windows: [{size: 768MiB, targets: [hb0], shared: way-a}]
    memory: 768MiB
  beta:
    bridges: {hb0: {ports: [rack]}}
    windows: [{size: 768MiB, targets: [hb0], shared: way-b}]
    memory: 768MiB
"""
BY_HAND = """
set -e
cd /sys/bus/cxl/devices
region=$(cat decoder0.0/create_ram_region)
echo "dax${region#region}.0" >/sys/bus/dax/drivers/device_dax/new_id
cxl create-region -t ram -d decoder0.0 -m mem0
"""
"""What docs/howto/pool.md has people do on a Linux of their own."""


@pytest.fixture(scope="module")
def rack(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooled]:
    folder = tmp_path_factory.mktemp("pool")
    with ExitStack() as stack:
        fabric, server, address = stack.enter_context(serving(folder, TOPOLOGY, Plan.within(32 * MIB)))
        guests = Guests(server)
        for way in fabric.pool_memory.values():
            way.show(guests.memories())
            stack.enter_context(Front(guests, way))
        machines = {
            name: stack.enter_context(boot(fabric, name, parts=parts, python=True)) for name in fabric.hosts
        }
        yield Pooled(server, address, machines)


def test_linux_makes_the_region_and_leaves_it_to_programs(rack: Pooled) -> None:
    alpha, beta = rack.guests.values()
    made = json.loads(alpha.output(BY_HAND))
    assert (made["region"], made["size"], made["interleave_ways"]) == ("region0", 768 * MIB, 1)
    assert beta.output("softcxl-pool-region") == "/dev/dax0.0\n"
    for guest in rack.guests.values():
        (found,) = json.loads(guest.output("daxctl list"))
        assert (found["chardev"], found["size"], found["mode"]) == ("dax0.0", 768 * MIB, "devdax")


def test_a_program_in_a_guest_and_one_on_the_host_share_a_region(rack: Pooled) -> None:
    assert rack.share_a_region() == "dax:/dev/dax0.0"


def test_calls_go_from_a_guest_to_the_host(rack: Pooled) -> None:
    """Each sleeps, and is woken by the other: by a futex on the host, of a bell that the guest rings, and by a nap."""
    with connect(rack.address, name="host") as pool:

        @pool.service("sums")
        def double(number: int) -> int:
            return 2 * number

        said = python(
            rack.guests["alpha"],
            "import softcxl\n"
            "with softcxl.connect(name='caller') as pool:\n"
            "    sums = pool.client('sums')\n"
            "    print([sums.double(number) for number in range(20)])\n",
        )
    assert said == f"{[2 * number for number in range(20)]}\n"


def test_two_guests_take_turns_by_rings(rack: Pooled) -> None:
    said: dict[str, str] = {}
    scripts = {
        "alpha": "there, back = pool.ring('there').producer(), pool.ring('back').consumer()\n"
        "for number in range(50):\n"
        "    there.send(b'%d' % number, timeout=60)\n"
        "    assert int(back.receive(timeout=60)) == number + 1",
        "beta": "there, back = pool.ring('there').consumer(), pool.ring('back').producer()\n"
        "for _ in range(50):\n"
        "    back.send(b'%d' % (int(there.receive(timeout=60)) + 1), timeout=60)\n"
        "print('all')",
    }

    def run(name: str) -> None:
        lines = scripts[name].replace("\n", "\n    ")
        said[name] = python(
            rack.guests[name],
            f"import softcxl\nwith softcxl.connect(name='{name}') as pool:\n    {lines}",
        )

    threads = [threading.Thread(target=run, args=(name,)) for name in scripts]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert said == {"alpha": "", "beta": "all\n"}


def test_a_program_that_lies_hurts_nobody(rack: Pooled) -> None:
    """Rubbish in all of the front but its table, by one with the right to write there."""
    python(
        rack.guests["beta"],
        "import mmap, os, random\n"
        "front = mmap.mmap(os.open('/dev/dax0.0', os.O_RDWR), 2 << 20)\n"
        "for _ in range(20):\n"
        "    front[0x3000:0x4000] = random.randbytes(0x1000)\n"
        "    front[0x4000:0xC000] = random.randbytes(0x8000)\n"
        "for cell in range(8):\n"
        "    front[0x3000 + 56 * 8 + 8 * cell] = 2\n"
        "front[0x3000:0x4000] = bytes(0x1000)\n",
    )
    for guest in rack.guests.values():
        said = python(guest, "import softcxl\nprint(softcxl.connect(name='n').open('shared').read(4096, 14))")
        assert said == "b'from the guest'\n"


def test_a_guest_that_restarts_has_no_slots_and_the_pool_has_lost_nothing(rack: Pooled) -> None:
    guest = rack.guests["beta"]
    guest.output(
        "python3 -c 'import softcxl, time; pool = softcxl.connect(name=\"old\"); time.sleep(600)'"
        " >/dev/null 2>&1 </dev/null &"
    )
    rack.await_clients("beta", ["old"])
    guest.reboot()
    assert rack.clients("beta") == []
    assert guest.output("softcxl-pool-region") == "/dev/dax0.0\n"
    said = python(
        guest,
        "import softcxl\nwith softcxl.connect(name='new') as pool: print(pool.open('shared').read(4096, 14))",
    )
    assert said == "b'from the guest'\n"


def test_a_region_that_is_too_small_or_linuxs_own_is_refused(rack: Pooled) -> None:
    """And where Linux gets it all the same, it leaves it offline: the lab's guests are told so."""
    guest = rack.guests["beta"]
    guest.output("daxctl disable-device dax0.0; cxl destroy-region -f region0")
    rack.await_clients("beta", [])
    connecting = (
        "import softcxl\n"
        "try: softcxl.connect('dax:/dev/dax%d.0')\n"
        "except softcxl.pool.errors.NoServer as error: print(error)"
    )
    made = json.loads(guest.output("cxl create-region -t ram -d decoder0.0 -m mem0 -s 256M"))
    number = int(made["region"].removeprefix("region"))
    guest.output("until [ -e /sys/bus/dax/devices/dax*.0/driver ]; do usleep 20000; done", timeout=180)
    (found,) = json.loads(guest.output("daxctl list"))
    assert (found["mode"], found["online_memblocks"]) == ("system-ram", 0)
    assert "as its own memory (kmem)" in python(guest, connecting % number)
    guest.output(f"daxctl reconfigure-device -m devdax -f dax{number}.0", timeout=180)
    said = python(guest, connecting % number)
    assert f"has {256 * MIB} bytes, and the pool takes {(2 + 32 + 512) * MIB}" in said
    with connect(rack.address, name="host") as pool:
        assert pool.open("shared").read(4096, 14) == b"from the guest"


def test_a_guest_that_is_killed_has_no_slots_any_more(rack: Pooled) -> None:
    rack.kill("alpha")
