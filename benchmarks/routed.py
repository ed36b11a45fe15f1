"""What a scalar load or store of CXL memory costs when every decoder on the way is asked.

The floor, measured in turns with it: the same accesses when the answer is known, a dictionary from an address to
the medium's file and offset, and the bytes read or written there. Prints accesses a second, and ratios to the floor.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack

from softcxl.device.type3 import Type3
from softcxl.memory import Medium, Window
from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.machine import HostMachine
from softcxl.switch.port import CxlLink
from softcxl.switch.route import CxlWindow
from softcxl.switch.upstream import UpstreamPort

BLOCK, BASE, COUNT = 256 << 20, 1 << 34, 20_000
SHAPES = [
    ("1 way, no switch", (1, 1)),
    ("8 ways over 2 bridges", (2, 4)),
    ("8 ways, 1 level of switches", (2, 2, 2)),
    ("16 ways, 3 levels of switches", (2, 2, 2, 2, 1)),
]


def build(stack: ExitStack, shape: tuple[int, ...]) -> tuple[HostMachine, int]:
    """A machine with a region over all devices of a tree of this shape, finest at the window."""
    ways = 1
    granularity = []
    for count in shape:
        granularity.append(256 * ways)
        ways *= count
    size = ways * BLOCK
    devices = []

    def fill(port: CxlLink, depth: int) -> None:
        if depth == len(shape):
            device = Type3(f"mem{len(devices)}", volatile=BLOCK)
            stack.callback(device.close)
            devices.append(device)
            port.plug(device)
            return
        switch = UpstreamPort(f"{port.name} switch", shape[depth])
        port.plug(switch)
        for number in range(shape[depth]):
            fill(switch.ports[number], depth + 1)
        switch.decoders.program(
            0, hpa=BASE, size=size, targets=range(shape[depth]), granularity=granularity[depth]
        )

    bridges = [HostBridge(f"hb{number}", shape[1]) for number in range(shape[0])]
    for bridge in bridges:
        for number in range(shape[1]):
            fill(bridge.ports[number], 2)
        assert bridge.decoders is not None
        bridge.decoders.program(0, hpa=BASE, size=size, targets=range(shape[1]), granularity=granularity[1])
    window = Window(BASE, size, stack.enter_context(Medium.memfd("window", size)))
    machine = HostMachine(bridges, [CxlWindow(window, tuple(bridges))])
    for device in devices:
        device.decoders.program(0, hpa=BASE, size=size, ways=ways, granularity=256)
        device.dvsec.control.mem_enable = True
    return machine, size


def rate(work: Callable[[], None]) -> float:
    """Accesses a second of CPU time, the best of five."""
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        work()
        best = max(best, COUNT / (time.process_time() - start))
    return best


def measure(machine: HostMachine, size: int) -> tuple[float, float, float, float]:
    """Loads a second, stores a second, and those of the floor."""
    random.seed(1)
    addresses = [BASE + random.randrange(size // 8) * 8 for _ in range(COUNT)]
    value = b"8 bytes!"
    for address in addresses:
        machine.store(address, value)
    known = {}
    for address in addresses:
        found = machine.trace(address)
        device = found.device.space
        [part] = device.parts(found.dpa, found.dpa + 8)
        known[address] = (
            (device.home, found.dpa)
            if part.window is None or part.stripe is None
            else (part.window.medium, part.stripe.offset(found.dpa))
        )

    def loads() -> None:
        load = machine.load
        for address in addresses:
            load(address, 8)

    def stores() -> None:
        store = machine.store
        for address in addresses:
            store(address, value)

    def known_loads() -> None:
        for address in addresses:
            medium, offset = known[address]
            medium.read(offset, 8)

    def known_stores() -> None:
        for address in addresses:
            medium, offset = known[address]
            medium.write(offset, value)

    return rate(loads), rate(stores), rate(known_loads), rate(known_stores)


def show(name: str, rates: tuple[float, float, float, float]) -> None:
    loads, stores, known_loads, known_stores = rates
    print(f"{name:32}{loads:12,.0f}{loads / known_loads:10.2f}{stores:12,.0f}{stores / known_stores:10.2f}")


def main() -> None:
    print("scalar accesses of 8 bytes, every decoder asked; floor: a dictionary that knows the place")
    print(f"{'way':32}{'loads/s':>12}{'of floor':>10}{'stores/s':>12}{'of floor':>10}")
    for name, shape in SHAPES:
        with ExitStack() as stack:
            machine, size = build(stack, shape)
            show(name, measure(machine, size))
    with ExitStack() as stack:
        machine, size = build(stack, SHAPES[-1][1])
        machine.view(BASE, size)
        show("the same, in the window's file", measure(machine, size))


if __name__ == "__main__":
    main()
