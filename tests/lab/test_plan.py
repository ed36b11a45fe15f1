"""Where things lie in a guest, against addresses seen in QEMU and Linux; and plans that cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from softcxl.fabric.layout import device_memory_base, window_bases
from softcxl.lab.errors import PlanError
from softcxl.lab.plan import (
    Bridge,
    DownstreamPort,
    Endpoint,
    GiB,
    GuestPlan,
    MiB,
    RootPort,
    Switch,
    Window,
    bus_numbers,
    buses,
)

PLAN = GuestPlan(
    bridges=(Bridge("hb0", 12, (RootPort("rp0", Endpoint("mem0", Path("/s/mem0"))), RootPort("rp1"))),),
    windows=(Window("w0", 4 * GiB, GiB, Path("/w"), (12,)),),
)


@pytest.mark.parametrize(
    ("memory", "base"),
    # from QEMU's own map (info mtree) for these sizes of -m
    [(512 * MiB, 4 * GiB), (GiB, 4 * GiB), (2 * GiB, 4 * GiB), (0xB0000000, 5 * GiB), (4 * GiB, 6 * GiB)],
)
def test_device_memory_base(memory: int, base: int) -> None:
    assert device_memory_base(memory) == base


def test_windows_follow_one_another() -> None:
    assert window_bases(GiB, [GiB, 256 * MiB, 2 * GiB]) == [4 * GiB, 5 * GiB, 6 * GiB]
    assert window_bases(GiB, []) == []
    # a region over three bridges begins with the first of them: bridges are chosen by the address modulo 3
    assert window_bases(GiB, [GiB, 3 * GiB, 3 * GiB], [2, 3, 6]) == [4 * GiB, 6 * GiB, 9 * GiB]
    assert window_bases(8 * GiB, [256 * MiB, 3 * GiB, GiB], [1, 12, 1]) == [10 * GiB, 12 * GiB, 15 * GiB]


def test_buses() -> None:
    switch = Switch("sw", (DownstreamPort("d0"), DownstreamPort("d1")))
    # the bridge itself, one behind each root port, and behind a switch's port one for it and one for each below
    assert buses([RootPort("a"), RootPort("b", switch)]) == 1 + 1 + (1 + 1 + 2)
    assert bus_numbers([[RootPort("a"), RootPort("b", switch)], [RootPort("c")]]) == [12, 18]


def test_too_many_buses() -> None:
    with pytest.raises(PlanError, match=r"need 250 PCI bus numbers; there are 244"):
        bus_numbers([[RootPort("x")] * 49] * 5)


def test_good_plan() -> None:
    PLAN.check()
    GuestPlan().check()


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (replace(PLAN, memory=100), r"memory is 100 bytes; 256 MiB or more"),
        (replace(PLAN, cpus=0), r"0 processors"),
        (replace(PLAN, bridges=(Bridge("0hb", 12, (RootPort("rp0"),)),)), r"the name '0hb' is not a letter"),
        (replace(PLAN, bridges=(Bridge("rp", 12, (RootPort("rp"),)),)), r"the name 'rp' is used twice"),
        (replace(PLAN, bridges=(Bridge("hb", 12, ()),)), r"the bridge hb has no ports"),
        (
            GuestPlan(bridges=tuple(Bridge(f"hb{n}", 12 + 2 * n, (RootPort(f"p{n}"),)) for n in range(17))),
            r"17 host bridges; QEMU has room for 16",
        ),
        (replace(PLAN, bridges=(Bridge("hb", 255, (RootPort("p"),)),)), r"needs PCI buses 255 to 256"),
        (
            replace(PLAN, bridges=(Bridge("a", 12, (RootPort("p"),)), Bridge("b", 13, (RootPort("q"),)))),
            r"the bridges a and b both need PCI bus 13",
        ),
        (replace(PLAN, windows=(Window("w", 4 * GiB, MiB, 3, (12,)),)), r"is 0x100000 bytes at 0x100000000"),
        (
            replace(PLAN, windows=(Window("w", 2 * GiB, GiB, 3, (12,)),)),
            r"only from 0x100000000 on there is room",
        ),
        (
            replace(
                PLAN, windows=(Window("w", 5 * GiB, GiB, 3, (12,)), Window("x", 4 * GiB, 2 * GiB, 3, (12,)))
            ),
            r"the window w begins at 0x140000000, and only from 0x180000000",
        ),
        (
            replace(PLAN, windows=(Window("w", 4 * GiB, GiB, 3, (13,)),)),
            r"has the targets \[13\]; bridges are \[12\]",
        ),
        (replace(PLAN, windows=(Window("w", 4 * GiB, GiB, 3, ()),)), r"has the targets \[\]"),
    ],
)
def test_bad_plans(plan: GuestPlan, sentence: str) -> None:
    with pytest.raises(PlanError, match=sentence):
        plan.check()
