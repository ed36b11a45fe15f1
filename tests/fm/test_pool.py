"""The library at a switch of ours with a device of logical devices, over real sockets, in both dialects."""

import asyncio
import struct
from contextlib import aclosing
from uuid import UUID

import pytest

from softcxl import fm
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.type3 import Type3
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.events import EventLog, MctpEventInterrupts
from softcxl.spec.command.information import ComponentType
from softcxl.spec.cxl.events import DynamicCapacityEvent, DynamicCapacityEventType
from softcxl.spec.fm.events import VirtualSwitchEvent
from softcxl.spec.fm.mld_port import FM_OWNED_LD
from softcxl.spec.fm.switch import PortOperation
from softcxl.spec.fm.vcs import BindingStatus, UnbindOption
from softcxl.switch.physical import PhysicalSwitch
from softcxl.transport.mctp import Endpoint, MctpTcpDoor
from tests.device.dynamic.dc_host import DcHost

MIB, GIB = 1 << 20, 1 << 30
TAG = UUID(int=0x5AFE)
LEFT, RIGHT = 0, 1


@pytest.fixture
def pool():
    pool = MultiLogicalDevice(
        "pool",
        volatile=4 * GIB,
        logical_devices=[GIB, GIB, 0, 0],
        dynamic=[DynamicRegion(length=256 * MIB), DynamicRegion(length=256 * MIB, sharable=True)],
        serial=0x1234,
    )
    yield pool
    pool.close()


@pytest.fixture
def switch(pool):
    switch = PhysicalSwitch("rack", ports=3, virtual=[("left", 3), ("right", 200)], serial=0x77)
    switch.ports[0].insert(pool)
    spare = Type3("spare", volatile=GIB)
    switch.ports[1].insert(spare)
    yield switch
    switch.close()
    spare.close()


@pytest.fixture(params=list(fm.Dialect), ids=lambda one: one.value)
def rack(request, switch):
    """Connects to the switch."""

    def opened(send):
        return switch.management(lambda notification: send(0x0106, notification.pack()))

    with MctpTcpDoor({8: Endpoint("rack", opened)}, port=0, dialect=request.param) as door:
        yield lambda: fm.connect(f"tcp:127.0.0.1:{door.address[1]}", dialect=request.param)


def asked(rack, ask):
    async def run():
        async with rack() as switch:
            return await ask(switch)

    return asyncio.run(run())


def test_a_binding_and_what_the_switch_says_of_it(rack, switch):
    async def ask(client):
        percents: list[int] = []
        assert await client.bind(LEFT, 1, 0, 1, progress=percents.append)
        assert await client.bind(RIGHT, 199, 1)
        assert percents[-1] == 100
        left, right = await client.virtual_switches()
        identity = await client.identify_switch()
        assert (identity.vppb_count, identity.bound_vppb_count) == (203, 2)
        assert [one.status for one in left.vppbs] == [0, BindingStatus.BOUND_LD, 0]
        assert (left.vppbs[1].port, left.vppbs[1].ld) == (0, 1)
        assert len(right.vppbs) == 200
        assert (right.vppbs[199].status, right.vppbs[199].port) == (BindingStatus.BOUND_PORT, 1)
        assert await client.unbind(LEFT, 1)
        assert await client.unbind(RIGHT, 199, UnbindOption.SURPRISE_HOT_REMOVE)
        assert (await client.identify_switch()).bound_vppb_count == 0

    asked(rack, ask)


def test_what_is_bound_is_refused_to_others(rack):
    async def ask(client):
        await client.bind(LEFT, 0, 0, 0)
        for refused in (
            client.bind(RIGHT, 0, 0, 0),  # bound already
            client.bind(LEFT, 0, 0, 1),  # the vPPB has something
            client.bind(LEFT, 1, 0),  # an MLD, and which LD?
            client.bind(LEFT, 1, 1, 0),  # a device without LDs
            client.bind(LEFT, 1, 9),  # no such port
            client.bind(LEFT, 9, 1),
            client.bind(9, 0, 1),
            client.unbind(LEFT, 1),
        ):
            with pytest.raises(fm.CommandRefused) as error:
                await refused
            assert error.value.code == ReturnCode.INVALID_INPUT
        assert (await client.identify_switch()).bound_vppb_count == 1

    asked(rack, ask)


def test_two_fabric_managers_race_for_one_logical_device(rack, switch):
    async def ask(client):
        async with rack() as other:
            results = await asyncio.gather(
                *(one.bind(vcs, 0, 0, 0) for one, vcs in ((client, LEFT), (other, RIGHT))),
                return_exceptions=True,
            )
        won = [one for one in results if one is True]
        (lost,) = [one for one in results if isinstance(one, fm.FmError)]
        assert won == [True]
        # another binding is under way, or it is bound by then, or the winner's operation is what it sees
        assert isinstance(lost, fm.CommandRefused)
        assert lost.code in (ReturnCode.BUSY, ReturnCode.INVALID_INPUT)

    asked(rack, ask)
    bound = [vppb for one in switch.virtual.values() for vppb in one.vppbs if vppb.port is not None]
    assert len(bound) == 1


def test_many_questions_at_once(rack):
    async def ask(client):
        found = await asyncio.gather(*(client.ports([number % 5]) for number in range(100)))
        assert [one[0].port for one in found] == [number % 5 for number in range(100)]

    asked(rack, ask)


def test_components_behind_tunnels(rack):
    async def ask(client):
        device = client.port(0)
        ld = device.ld(1)
        assert (await client.identify()).component_type == ComponentType.SWITCH
        assert (await device.identify()).component_type == ComponentType.TYPE_3
        assert (await ld.identify()).component_type == ComponentType.TYPE_3
        assert {0x5400, 0x5600} <= {one.opcode for one in await device.command_effects()}
        assert 0x4000 in {one.opcode for one in await ld.command_effects()}
        assert (await client.port(1).identify()).component_type == ComponentType.TYPE_3
        for nowhere in (client.port(2), client.port(77), device.ld(9), client.port(1).ld(0)):
            with pytest.raises(fm.CommandRefused):
                await nowhere.identify()

    asked(rack, ask)


def test_allocations(rack, pool):
    async def ask(client):
        device = client.port(0)
        info = await device.ld_info()
        assert (info.memory_size, info.ld_count) == (4 * GIB, 4)
        assert await device.ld_allocations() == fm.Allocations(
            256 * MIB, [(GIB, 0), (GIB, 0), (0, 0), (0, 0)]
        )
        assert await device.set_ld_allocations([(512 * MIB, 0), (256 * MIB, 0)], start=2) == [
            (512 * MIB, 0),
            (256 * MIB, 0),
        ]
        with pytest.raises(fm.CommandRefused):
            await device.set_ld_allocations([(4 * GIB, 0)], start=3)  # more than there is
        assert (await device.ld_allocations()).ranges[2:] == [(512 * MIB, 0), (256 * MIB, 0)]

    asked(rack, ask)
    assert sorted(pool.logical) == [0, 1, 2, 3]


def test_quality_of_service(rack):
    async def ask(client):
        device = client.port(0)
        control = await device.qos_control()
        control.egress_moderate_percentage = 20
        assert (await device.set_qos_control(control)).egress_moderate_percentage == 20
        assert await device.set_allocated_bandwidth([64, 32], start=1) == [64, 32]
        assert (await device.allocated_bandwidth(4))[1:3] == [64, 32]
        assert await device.set_bandwidth_limit([128]) == [128]
        assert (await device.bandwidth_limit(4))[0] == 128
        assert 0 <= await device.qos_status() <= 100

    asked(rack, ask)


def test_configuration_space_of_the_bridge_and_of_a_logical_device(rack):
    async def ask(client):
        bridge = await client.read_configuration(0, 0, 64)
        device = await client.read_configuration(0, 0, 64, ld=1)
        assert (bridge[14] & 0x7F, device[14] & 0x7F) == (1, 0)  # header types
        # CXL Memory Device: class 05, subclass 02, interface 10h
        assert device[9:12] == bytes([0x10, 0x02, 0x05])
        assert len(await client.read_configuration(0, 0x100, 3840, ld=FM_OWNED_LD)) == 3840
        await client.write_configuration(0, 0x3C, b"\x2a", ld=1)
        assert await client.read_configuration(0, 0x3C, 1, ld=1) == b"\x2a"

    asked(rack, ask)


def test_memory_of_a_logical_device(rack):
    async def ask(client):
        # a BAR gets an address, memory accesses are switched on, as enumeration does
        await client.write_configuration(0, 0x10, struct.pack("<Q", 0x4000_0000_0000), ld=1)
        for bar in range(0x18, 0x28, 8):
            await client.write_configuration(0, bar, struct.pack("<Q", 0x5000_0000_0000 + (bar << 24)), ld=1)
        await client.write_configuration(0, 4, b"\2", ld=1)
        low, high = struct.unpack("<II", await client.read_configuration(0, 0x10, 8, ld=1))
        base = (high << 32 | low) & ~0xF
        whole = await client.read_memory(0, 1, base, 0x3000)
        assert len(whole) == 0x3000
        # CXL.cachemem capability header after 4 KiB of component registers: ID 1 (CXL 3.1 Table 8-22)
        assert int.from_bytes(whole[0x1000:0x1002], "little") == 1
        assert await client.read_memory(0, 1, base + 0x1001, 7) == whole[0x1001:0x1008]
        with pytest.raises(fm.CommandRefused):
            await client.read_memory(0, 1, 0x7000_0000_0000, 4)

    asked(rack, ask)


def test_port_control(rack):
    async def ask(client):
        await client.control_port(0, PortOperation.ASSERT_PERST)
        (port,) = await client.ports([0])
        assert port.link_state.perst
        with pytest.raises(fm.CommandRefused) as refused:
            await client.port(0).identify()
        assert refused.value.code == ReturnCode.RETRY_REQUIRED
        await client.control_port(0, PortOperation.DEASSERT_PERST)
        await client.control_port(0, PortOperation.RESET_PPB)
        assert (await client.port(0).identify()).serial_number

    asked(rack, ask)


# -- events --------------------------------------------------------------------------------------------------


def test_a_binding_is_notified_of(rack):
    async def ask(client):
        await client.take_events(EventLog.INFORMATIONAL)
        asked_for = MctpEventInterrupts.make(informational=True, background_operation=True)
        assert await client.set_notification_policy(asked_for) == asked_for
        told = client.notifications()
        await client.bind(LEFT, 2, 0, 0)
        seen = 0
        while seen != int(asked_for):
            seen |= int(await anext(told))
        (event,) = await client.take_events(EventLog.INFORMATIONAL)
        assert isinstance(event, VirtualSwitchEvent)
        assert (event.vcs, event.vppb, event.binding_status) == (LEFT, 2, BindingStatus.BOUND_LD)
        assert (event.bound_port, event.bound_ld) == (0, 0)

    asked(rack, ask)


def test_one_fabric_manager_follows_what_another_one_does(rack):
    async def ask(client):
        await client.take_events(EventLog.INFORMATIONAL)
        async with rack() as other, aclosing(client.follow_events([EventLog.INFORMATIONAL])) as events:
            for vppb in range(3):
                await other.bind(LEFT, vppb, *((1,), (0, 0), (0, 1))[vppb])
                _, event = await anext(events)
                assert (event.vcs, event.vppb) == (LEFT, vppb)

    asked(rack, ask)


# -- dynamic capacity ----------------------------------------------------------------------------------------


def test_dynamic_capacity_of_two_hosts(rack, pool):
    async def ask(client):
        device = client.port(0)
        info = await device.dc_info()
        assert info.region_count == 2
        regions = (await device.dc_regions(1)).regions
        assert [one.length for one in regions] == [256 * MIB, 256 * MIB]
        assert [bool(one.attributes.shareable) for one in regions] == [False, True]
        await device.dc_add(0, 64 * MIB, region=1, tag=TAG)
        start = regions[1].base
        assert (await device.dc_tags())[0].pending == [0]
        assert DcHost(pool.logical[0]).accept((start, 64 * MIB)) == 0
        await device.dc_share(1, TAG, region=1)
        assert DcHost(pool.logical[1]).accept((start, 64 * MIB)) == 0
        both = [await device.dc_extents(0), await device.dc_extents(1)]
        assert both == [[fm.Extent(start, 64 * MIB, TAG, 0)]] * 2
        (tag,) = await device.dc_tags()
        assert (tag.tag, tag.hosts, tag.pending, tag.fm_reference) == (TAG, [0, 1], [], False)
        events = await device.take_events(EventLog.DYNAMIC_CAPACITY)
        assert all(isinstance(one, DynamicCapacityEvent) for one in events)
        answered = [
            one.host_id for one in events if one.event_type == DynamicCapacityEventType.ADD_CAPACITY_RESPONSE
        ]
        assert answered == [0, 1]
        await device.dc_add_reference(TAG)
        for host in (0, 1):
            await device.dc_release(host, TAG, 64 * MIB, forced=True)
        assert await device.dc_extents(0) == []
        assert (await device.dc_tags())[0].fm_reference
        await device.dc_remove_reference(TAG)
        assert await device.dc_tags() == []

    asked(rack, ask)


def test_extents_by_their_addresses(rack, pool):
    async def ask(client):
        device = client.port(0)
        base = (await device.dc_regions(0)).regions[0].base
        wanted = [fm.Extent(base + 8 * MIB, 2 * MIB), fm.Extent(base + 32 * MIB, 4 * MIB)]
        await device.dc_add_extents(0, wanted)
        assert DcHost(pool.logical[0]).accept(*((one.start, one.length) for one in wanted)) == 0
        assert await device.dc_extents(0) == wanted
        await device.dc_release_extents(0, wanted[:1], forced=True)
        assert await device.dc_extents(0) == wanted[1:]
        with pytest.raises(fm.CommandRefused) as refused:
            await device.dc_add_extents(0, [fm.Extent(base + 1, 2 * MIB)])
        assert refused.value.code in (ReturnCode.INVALID_EXTENT_LIST, ReturnCode.INVALID_PHYSICAL_ADDRESS)
        with pytest.raises(fm.CommandRefused) as refused:
            await device.dc_add(0, GIB)
        assert refused.value.code == ReturnCode.RESOURCES_EXHAUSTED

    asked(rack, ask)


def test_a_region_is_configured(rack):
    async def ask(client):
        device = client.port(0)
        await device.set_dc_region(0, 4 * MIB, sanitize_on_release=True)
        (first, _) = (await device.dc_regions(0)).regions
        assert first.block_size == 4 * MIB
        assert first.flags.sanitize_on_release

    asked(rack, ask)
