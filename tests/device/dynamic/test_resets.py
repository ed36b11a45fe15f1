"""What resets leave, and what outlives the process."""

import json
import struct
from uuid import UUID

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.selection import Selection
from softcxl.device.persist import StateDamaged
from softcxl.device.type3 import Type3
from softcxl.memory.media import Medium
from softcxl.wire import Reset
from tests.device.dynamic.dc_host import BASE, MIB, DcHost

SUCCESS, ADDRESS, INVALID_INPUT = 0, 0x0F, 0x02
TAG = UUID("00112233-4455-6677-8899-aabbccddeeff")
SHARED = BASE + 256 * MIB
VOLATILE, LASTING = (BASE, 4 * MIB), (SHARED, 2 * MIB)


@pytest.fixture
def busy(dcd, host):
    """Extents in both regions, bytes in them, an offer, and half an answer."""
    dcd.dynamic.add(length=4 * MIB)
    dcd.dynamic.add(region=1, length=2 * MIB, tag=TAG)
    assert host.accept(VOLATILE) == host.accept(LASTING) == SUCCESS
    host.events()
    for start, _ in (VOLATILE, LASTING):
        dcd.space.write(start, b"data")
    dcd.dynamic.add(length=8 * MIB)
    assert host.accept((BASE + 4 * MIB, 2 * MIB), more=True) == SUCCESS
    return dcd


@pytest.mark.parametrize("kind", [Reset.FLR, Reset.HOT, Reset.CXL])
def test_a_reset_that_keeps_the_power(busy, host, kind):
    """The list stays as it is, for the host to read when it comes up; so do offers, with their records."""
    busy.reset(kind)
    assert [one[:2] for one in host.extents()] == [VOLATILE, LASTING]
    assert host.generation() == 2
    assert busy.space.read(BASE, 4) == busy.space.read(SHARED, 4) == b"data"
    (offered,) = host.events()
    assert offered.extent[:2] == (BASE + 4 * MIB, 8 * MIB)
    # the half answer is forgotten: a whole one may begin with the same extent
    assert host.accept((BASE + 4 * MIB, 2 * MIB)) == SUCCESS


def test_a_cold_reset(busy, host):
    """Volatile memory has forgotten, and its extents are gone with it; so are the log and what stood in it."""
    busy.reset(Reset.COLD)
    assert [one[:2] for one in host.extents()] == [LASTING]
    assert host.generation() == 3
    assert busy.space.read(BASE, 4) == bytes(4)
    assert busy.space.read(SHARED, 4) == b"data"
    assert host.events() == []
    assert busy.dynamic.pending == ()
    assert busy.dynamic.free() == [(BASE, BASE + 256 * MIB)]
    assert host.accept((BASE + 4 * MIB, 2 * MIB)) == ADDRESS
    assert host.accept() == INVALID_INPUT
    busy.reset(Reset.COLD)
    assert host.generation() == 3


def test_timers_end_with_the_device(dcd, clock):
    offer = dcd.dynamic.add(length=2 * MIB, timeout=5)
    dcd.close()
    clock.advance(10)
    assert offer.state.value == "offered"


class Run:
    """One run of a process that has a device with files."""

    def __init__(self, folder):
        regions = [
            DynamicRegion(length=256 * MIB),
            DynamicRegion(length=128 * MIB, block_size=MIB, sharable=True, non_volatile=True),
        ]
        self.medium = Medium.open(folder / "mem0.mem", 1024 * MIB)
        try:
            self.device = Type3(
                "mem0",
                volatile=256 * MIB,
                persistent=256 * MIB,
                dynamic=regions,
                clock=ManualClock(),
                medium=self.medium,
                state=folder / "mem0.state",
            )
        except ValueError:
            self.medium.close()
            raise
        self.host = DcHost(self.device)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.device.close()
        self.medium.close()


def test_extents_outlive_the_process(tmp_path):
    with Run(tmp_path) as run:
        run.device.dynamic.add(length=4 * MIB)
        run.device.dynamic.add(
            region=1,
            selection=Selection.PRESCRIPTIVE,
            extents=[(SHARED + 4 * MIB, MIB), (SHARED, MIB)],
            tag=TAG,
        )
        assert run.host.accept(VOLATILE) == SUCCESS
        assert run.host.accept((SHARED, MIB), (SHARED + 4 * MIB, MIB)) == SUCCESS
        run.device.space.write(SHARED, b"data")
        assert run.host.generation() == 2
        run.device.dynamic.refer(TAG)
        before = run.host.extents()
    with Run(tmp_path) as run:
        assert run.host.extents() == before[1:]
        assert run.host.generation() == 3  # the volatile one is gone: another list
        assert run.device.space.read(SHARED, 4) == b"data"
        (use,) = run.device.dynamic.tags
        assert (use.hosts, use.referenced) == ((0,), True)
        assert run.host.release((SHARED, MIB), (SHARED + 4 * MIB, MIB)) == SUCCESS
    with Run(tmp_path) as run:
        assert run.host.extents() == []
        assert run.host.generation() == 4
        assert run.device.dynamic.tags[0].referenced
        run.device.dynamic.forget(TAG)
    with Run(tmp_path) as run:
        assert run.device.dynamic.free(1) == [(SHARED, SHARED + 128 * MIB)]


def damaged(extents=(), generation=1, **sections):
    hosts = {"0": {"generation": generation, "extents": list(extents)}}
    return {"hosts": hosts, "references": {}} | sections


def kept(start, length):
    return {"start": start, "length": length, "tag": str(TAG), "sequence": 0}


def test_a_configuration_outlives_the_process(tmp_path):
    """With extents in blocks that the regions had not from the factory."""
    with Run(tmp_path) as run:
        run.device.dynamic.configure(1, block_size=64 << 10, sanitize_on_release=True)
        run.device.dynamic.add(region=1, length=64 << 10, tag=TAG)
        assert run.host.accept((SHARED, 64 << 10)) == SUCCESS
    with Run(tmp_path) as run:
        region = run.device.dynamic.regions[1]
        assert (region.block_size, region.sanitize_on_release) == (64 << 10, True)
        assert run.host.extents()[0].length == 64 << 10
        assert run.host.configuration(1, 1)[1][8 + 24 : 8 + 32] == (64 << 10).to_bytes(8, "little")


def test_what_is_to_be_erased_is_not_forgotten(tmp_path):
    """One of two hosts has released it and it was to be erased then; the other one does after a restart."""

    def second(run):
        other = Type3("other", dynamic=run.device.dynamic.regions, clock=ManualClock())
        run.device.dynamic.connect(1, other.events, 4096)
        return other

    with Run(tmp_path) as run:
        other = second(run)
        run.device.dynamic.add(region=1, length=MIB, tag=TAG)
        assert run.host.accept((SHARED, MIB)) == SUCCESS
        run.device.dynamic.add(region=1, selection=Selection.SHARED, tag=TAG, host=1)
        run.device.dynamic.hosts[1].set(run.device.dynamic.extents)
        run.device.space.write(SHARED, b"secret")
        run.device.dynamic.release(tag=TAG, forced=True, sanitize=True)
        assert run.device.space.read(SHARED, 6) == b"secret"
        other.close()
    with Run(tmp_path) as run:
        other = second(run)
        assert run.device.space.read(SHARED, 6) == b"secret"
        run.device.dynamic.release(tag=TAG, forced=True, host=1)
        assert run.device.space.read(SHARED, 6) == bytes(6)
        other.close()


def test_whoever_watches_sees_what_happens_to_extents(dcd, host):
    seen = []
    dcd.dynamic.witness = lambda what, number, extents: seen.append(
        (what, number, [e.range for e in extents])
    )
    low, high = (512 * MIB, 514 * MIB), (514 * MIB, 516 * MIB)
    dcd.dynamic.add(length=2 * MIB)
    assert host.accept((512 * MIB, 2 * MIB)) == SUCCESS
    dcd.dynamic.add(length=2 * MIB)
    assert host.accept() == SUCCESS
    dcd.dynamic.add(length=2 * MIB)
    dcd.dynamic.clock.advance(60)
    dcd.dynamic.release(extents=[(512 * MIB, MIB * 2)])
    assert host.release((512 * MIB, 2 * MIB)) == SUCCESS
    dcd.dynamic.add(length=2 * MIB)
    dcd.dynamic.release(extents=[(512 * MIB, 2 * MIB)], forced=True)
    assert seen == [
        ("offered", 0, [low]),
        ("accepted", 0, [low]),
        ("offered", 0, [high]),
        ("declined", 0, []),
        ("offered", 0, [high]),
        ("declined", 0, []),
        ("asked-for", 0, [low]),
        ("released", 0, [low]),
        ("offered", 0, [low]),
        ("forced", 0, []),
    ]


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"hosts": {}},
        damaged(generation="many"),
        damaged([{"start": SHARED}]),
        damaged(hosts=[]),
        damaged(references={"no tag": []}),
        damaged([kept(BASE, 2 * MIB)]),
        damaged([kept(SHARED + 127 * MIB, 2 * MIB)]),
        damaged([kept(2048 * MIB, MIB)]),
        damaged([kept(SHARED, 4096)]),
        damaged([kept(SHARED, 2 * MIB), kept(SHARED + MIB, MIB)]),
        damaged(references={str(TAG): [kept(BASE, 2 * MIB)]}),
    ],
    ids=str,
)
def test_a_state_that_cannot_have_been(tmp_path, section):
    """Of another device, or damaged: it is refused, and left as it is."""
    page = tmp_path / "mem0.state"
    text = json.dumps({"format": 1, "sections": {"dynamic": section}})
    page.write_text(text)
    with pytest.raises(StateDamaged, match=r"mem0\.state: dynamic cannot have been"):
        Run(tmp_path)
    assert page.read_text() == text


def test_a_state_that_cannot_be_kept_changes_nothing(make, tmp_path):
    device = make(
        dynamic=[DynamicRegion(length=64 * MIB, non_volatile=True)], state=tmp_path / "gone" / "mem0.state"
    )
    host = DcHost(device)
    offer = device.dynamic.add(length=2 * MIB)
    assert host.accept((BASE, 2 * MIB)) == 0x04  # Internal Error
    assert host.extent_list(8) == (0, 0, 0, [])
    assert offer.state.value == "offered"
    (tmp_path / "gone").mkdir()
    assert host.accept((BASE, 2 * MIB)) == SUCCESS


def test_a_passphrase_locks_and_erases_what_is_non_volatile(dcd, host):
    """Set Passphrase 4501h, Unlock 4503h, Passphrase Secure Erase 4505h; 1 is the user's passphrase."""
    secret = b"p" * 32
    assert host.driver.send(0x4501, b"\1" + bytes(31) + bytes(32) + secret)[0] == SUCCESS
    dcd.reset(Reset.COLD)
    locks = dcd.security.locks
    assert not locks(0, 256 * MIB)
    assert locks(256 * MIB, 1)
    assert not locks(BASE, 256 * MIB)
    assert locks(SHARED, 1)
    assert locks(SHARED - 1, 2)
    for dpa in (256 * MIB, BASE, SHARED):
        dcd.space.write(dpa, b"data")
    assert host.driver.send(0x4505, b"\1" + bytes(31) + secret)[0] == SUCCESS
    assert [dcd.space.read(dpa, 4) for dpa in (256 * MIB, BASE, SHARED)] == [bytes(4), b"data", bytes(4)]
    assert not locks(SHARED, 1)


def test_sanitize_erases_all_of_it(busy, host, clock):
    """Sanitize 4400h; who has which extents is not data, and stays."""
    busy.inject_poison(SHARED)
    assert host.driver.send(0x4400)[0] == 1  # Background Command Started
    clock.advance(10)
    assert busy.space.read(BASE, 4) == busy.space.read(SHARED, 4) == bytes(4)
    assert SHARED not in busy.poison.map
    assert [one[:2] for one in host.extents()] == [VOLATILE, LASTING]


def test_media_operations_are_for_accepted_extents(busy, host, clock):
    """QEMU's validate_dpa_addr refuses dynamic capacity that is not backed. 4402h: zero."""

    def zero(start, length):
        return host.driver.send(0x4402, struct.pack("<BBHIQQ", 1, 1, 0, 1, start, length))[0]

    assert zero(BASE + 4 * MIB, 64) == INVALID_INPUT
    assert zero(BASE + 4 * MIB - 64, 128) == INVALID_INPUT
    assert zero(2048 * MIB, 64) == INVALID_INPUT
    assert zero(BASE, 64) == 1
    clock.advance(10)
    assert busy.space.read(BASE, 4) == bytes(4)
    assert busy.space.read(SHARED, 4) == b"data"
