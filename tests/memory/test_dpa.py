"""Device memory against plain byte arrays, whatever is committed over it.

The model knows nothing of places: a device is its bytes. A second check reads each region through the
window's file, byte by byte with scalar arithmetic.
"""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from itertools import count

import numpy as np
import pytest

from softcxl.memory import (
    AddressError,
    DpaSpace,
    GeometryError,
    Interleave,
    Medium,
    MediumFull,
    MediumUnfit,
    PersistenceLost,
    ResidencyError,
    Stripe,
    Window,
)

KIB = 1024
BASE = 4 << 30
CAPACITY = 96 * KIB
WINDOW = 384 * KIB
MAPS = (0x4100, 0x8200)


class Rig:
    """Some devices and windows in memory, with a model of what each device must hold."""

    def __init__(self, devices=3, windows=2):
        self.windows = [Window(BASE * (1 + n), WINDOW, Medium.memfd(f"w{n}", WINDOW)) for n in range(windows)]
        self.spaces = [DpaSpace(Medium.memfd(f"d{n}", CAPACITY), CAPACITY, f"d{n}") for n in range(devices)]
        self.model = [bytearray(CAPACITY) for _ in range(devices)]

    def write(self, device, dpa, data):
        self.spaces[device].write(dpa, data)
        self.model[device][dpa : dpa + len(data)] = data

    def check(self):
        for space, expected in zip(self.spaces, self.model, strict=True):
            assert space.read(0, CAPACITY) == expected, space.name
        self.check_places()

    def check_places(self):
        """A window's bytes have one owner at most; what belongs to none, and what left home, is zero."""
        for window in self.windows:
            owner = np.zeros(WINDOW, np.uint8)
            for one in window.residents:
                offsets = [one.stripe.offset(dpa) for dpa in range(one.start, one.end, 256)]
                owner.reshape(-1, 256)[np.array(offsets) // 256] += 1
            assert owner.max(initial=0) <= 1
            raw = np.frombuffer(window.medium.read(0, WINDOW), np.uint8)
            assert not raw[owner == 0].any()
        for space in self.spaces:
            for part in space.parts(0, CAPACITY):
                if part.window is not None:
                    assert not any(space.home.read(part.start, part.end - part.start))

    def close(self):
        for window in self.windows:
            window.medium.close()
        for space in self.spaces:
            space.home.close()


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.close()


def through_the_window(space):
    """The committed bytes of a device as a guest would see them, {DPA: byte}."""
    seen = {}
    for one in space.commitments:
        for hpa in range(one.hpa, one.hpa + one.size, 251):
            dpa = space.hpa_to_dpa(hpa)
            if dpa is not None:
                assert space.dpa_to_hpa(dpa) == hpa
                seen[dpa] = one.window.medium.read(one.window.offset(hpa), 1)[0]
    return seen


def test_home_at_first(rig):
    rig.write(0, 5, b"hello")
    rig.spaces[0].fill(100, 300, 0xA5)
    rig.model[0][100:400] = b"\xa5" * 300
    rig.write(0, 9, b"")
    rig.check()
    rig.spaces[0].clear(0, CAPACITY)
    assert rig.spaces[0].read(0, CAPACITY) == bytes(CAPACITY)
    assert rig.spaces[0].dpa_to_hpa(0) is None
    assert rig.spaces[0].hpa_to_dpa(BASE) is None


GEOMETRIES = [
    (Interleave(1, 256), [0]),
    (Interleave(2, 256), [1, 0]),
    (Interleave(2, 4096), [0, 1]),
    (Interleave(3, 256), [2, 0, 1]),
    (Interleave(3, 16384), [0, 1, 2]),
    (Interleave(4, 256, MAPS), [3, 0, 2]),
    (Interleave(6, 1024), [5, 1, 0]),
    (Interleave(12, 512, (0x4200, 0x8400)), [11, 7, 2]),
]


@pytest.mark.parametrize(("interleave", "positions"), GEOMETRIES, ids=repr)
def test_commit_brings_the_bytes_where_the_arithmetic_says(rig, interleave, positions):
    generator = random.Random(3)
    # A share starts inside the device, after a skip, and the region inside the window.
    share = 2 * 16 * KIB
    hpa = BASE + 8 * interleave.round if interleave.round * 8 + share * interleave.ways <= WINDOW else BASE
    for device in range(len(positions)):
        rig.write(device, 0, generator.randbytes(CAPACITY))
    share = min(share, (WINDOW - (hpa - BASE)) // interleave.round * interleave.granularity)
    for device, position in enumerate(positions):
        moved = rig.spaces[device].commit(
            rig.windows[0], hpa, share * interleave.ways, interleave, position, dpa=KIB, skip=3 * KIB
        )
        assert moved == share
    rig.check()
    for device in range(len(positions)):
        space = rig.spaces[device]
        seen = through_the_window(space)
        assert len(seen) > share // 300
        assert all(4 * KIB <= dpa < 4 * KIB + share for dpa in seen)
        assert all(rig.model[device][dpa] == byte for dpa, byte in seen.items())
        rig.write(device, 3 * KIB + 7, generator.randbytes(share))
        rig.write(device, 6 * KIB - 3, b"short")
    rig.check()
    for device in range(len(positions)):
        seen = through_the_window(rig.spaces[device])
        assert all(rig.model[device][dpa] == byte for dpa, byte in seen.items())


def test_release_leaves_bytes_and_the_same_geometry_moves_nothing(rig):
    space, window = rig.spaces[0], rig.windows[0]
    rig.write(0, 0, bytes(range(256)) * 64)
    geometry = (window, BASE, 64 * KIB, Interleave(2, 256), 1, 0)
    assert space.commit(*geometry) == 32 * KIB
    assert space.commit(*geometry) == 0
    assert len(space.commitments) == 1
    before = window.medium.read(0, WINDOW)
    space.release(BASE)
    assert (space.commitments, space.dpa_to_hpa(0)) == ((), None)
    assert window.medium.read(0, WINDOW) == before
    assert space.commit(*geometry) == 0
    space.release()
    rig.check()
    with pytest.raises(AddressError, match="no decoder is committed at HPA 0x100000000"):
        space.release(BASE)


def test_a_region_grown_or_shrunk_in_place_moves_only_what_is_new(rig):
    space, window = rig.spaces[0], rig.windows[0]
    rig.write(0, 0, random.Random(4).randbytes(CAPACITY))
    assert space.commit(window, BASE, 64 * KIB, Interleave(2, 256), 0, 0) == 32 * KIB
    space.release()
    assert space.commit(window, BASE, 128 * KIB, Interleave(2, 256), 0, 0) == 32 * KIB
    space.release()
    assert space.commit(window, BASE, 32 * KIB, Interleave(2, 256), 0, 0) == 0
    space.release()
    # One way has no granularity, and a region that starts some rounds later continues the same pattern.
    assert space.commit(window, BASE + 32 * KIB, 32 * KIB, Interleave(2, 256), 0, 16 * KIB) == 0
    rig.check()


def test_positions_of_one_region_do_not_disturb_each_other(rig):
    for device in range(3):
        rig.write(device, 0, bytes([device + 1]) * CAPACITY)
    for _ in range(2):
        for device in range(3):
            rig.spaces[device].release()
            rig.spaces[device].commit(rig.windows[0], BASE, 96 * KIB, Interleave(3, 256), device, 0)
    assert rig.windows[0].medium.read(0, 768) == b"\1" * 256 + b"\2" * 256 + b"\3" * 256
    assert len(rig.windows[0].residents) == 3
    rig.check()


def test_residents_in_the_way_go_home_and_the_others_stay(rig):
    first, second, window = rig.spaces[0], rig.spaces[1], rig.windows[0]
    rig.write(0, 0, random.Random(5).randbytes(CAPACITY))
    rig.write(1, 0, random.Random(6).randbytes(CAPACITY))
    first.commit(window, BASE, 96 * KIB, Interleave(1, 256), 0, 0)
    second.commit(window, BASE + 32 * KIB, 32 * KIB, Interleave(1, 256), 0, 64 * KIB)
    assert [(one.device, one.start, one.end) for one in window.residents] == [
        ("d0", 0, 32 * KIB),
        ("d0", 64 * KIB, 96 * KIB),
        ("d1", 64 * KIB, 96 * KIB),
    ]
    assert [(part.start, part.window) for part in first.parts(0, CAPACITY)] == [
        (0, window),
        (32 * KIB, None),
        (64 * KIB, window),
    ]
    rig.check()


def test_a_sparse_device_stays_sparse(rig):
    space, window = rig.spaces[0], rig.windows[0]
    rig.write(0, 40 * KIB, b"x")
    space.commit(window, BASE, 192 * KIB, Interleave(2, 4096), 1, 0)
    assert list(window.medium.data_ranges(0, WINDOW)) == [(84 * KIB, 88 * KIB)]
    assert list(space.home.data_ranges(0, CAPACITY)) == []
    space.clear(40 * KIB, 4 * KIB)
    assert list(window.medium.data_ranges(0, WINDOW)) == []
    space.write(0, b"\1" * CAPACITY)
    space.clear(0, CAPACITY)
    assert list(window.medium.data_ranges(0, WINDOW)) == []
    # The other half of every round is a hole, and wiping it does not fill it.
    space.write(0, b"\1" * CAPACITY)
    rig.spaces[1].commit(window, BASE, 192 * KIB, Interleave(2, 4096), 0, 0)
    assert len(list(window.medium.data_ranges(0, WINDOW))) == CAPACITY // 4096


@pytest.mark.parametrize("seed", range(12))
def test_any_sequence_of_commits_writes_and_clears(seed, monkeypatch):
    if seed % 2:  # small devices would otherwise never see what large ones do
        monkeypatch.setattr("softcxl.memory.stripe._FEW_HOLES", 1)
        monkeypatch.setattr("softcxl.memory.stripe._BLOCK", 5)
        monkeypatch.setattr("softcxl.memory.moves._PORTION", 9 * KIB)
    rig = Rig()
    generator = random.Random(seed)
    shapes = [Interleave(ways, 256 << generator.randrange(5)) for ways in (1, 1, 2, 3, 4, 6)]
    shapes += [Interleave(4, 256, MAPS), Interleave(2, 1024, (0x10400,))]
    for step in count():
        device = generator.randrange(3)
        space = rig.spaces[device]
        action = generator.choice(["write", "small", "clear", "fill", "commit", "commit", "commit"])
        if action == "commit":
            interleave = generator.choice(shapes)
            rounds = generator.randint(1, CAPACITY // interleave.granularity)
            rounds = min(rounds, WINDOW // interleave.round)
            size, share = rounds * interleave.round, rounds * interleave.granularity
            start = generator.randrange(0, WINDOW - size + 1, 4096)
            dpa = generator.randrange(0, CAPACITY - share + 1, 256)
            window = generator.choice(rig.windows)
            if generator.random() < 0.7:
                space.release()
            position = generator.randrange(interleave.ways)
            with suppress(AddressError):  # what it committed before may be in the way
                space.commit(window, window.base + start, size, interleave, position, dpa)
        else:
            dpa = generator.randrange(CAPACITY)
            size = generator.randint(0, CAPACITY - dpa)
            if action == "small":
                size = min(size, 600)
            if action == "clear":
                space.clear(dpa, size)
                rig.model[device][dpa : dpa + size] = bytes(size)
            elif action == "fill":
                space.fill(dpa, size, 0x5A)
                rig.model[device][dpa : dpa + size] = b"\x5a" * size
            else:
                rig.write(device, dpa, generator.randbytes(size))
        rig.check()
        if step == 30:
            break
    rig.close()


def test_what_cannot_be_committed_is_refused_and_nothing_changes(rig):
    space, window = rig.spaces[0], rig.windows[0]
    two = Interleave(2, 256)
    space.commit(window, BASE, 1 * KIB, two, 0, 0)
    before = window.residents
    refused = [
        (AddressError, "multiple of 0x200", (window, BASE, 768, two, 0, 4096)),
        (AddressError, "multiple of 0x200", (window, BASE, 0, two, 0, 4096)),
        (AddressError, "are not within the window", (window, BASE - 512, 512, two, 0, 4096)),
        (AddressError, "are not within the window", (window, BASE, WINDOW + 512, two, 0, 4096)),
        (AddressError, "are not within its 0x18000 bytes", (window, BASE + KIB, KIB, two, 0, CAPACITY)),
        (AddressError, "DPA 0x1ff to 0x3fe .* which is committed", (window, BASE + KIB, KIB, two, 0, 0x1FF)),
        (AddressError, "at HPA 0x100000200 to .* committed", (window, BASE + 512, KIB, two, 0, 4096)),
        (GeometryError, "position 2", (window, BASE + KIB, KIB, two, 2, 4096)),
        (
            GeometryError,
            "a multiple of 0x200",
            (window, BASE + 256, KIB, Interleave(2, 256, (0x4100,)), 0, 4096),
        ),
    ]
    for kind, words, arguments in refused:
        with pytest.raises(kind, match=words):
            space.commit(*arguments)
    assert window.residents == before
    assert len(space.commitments) == 1


def test_a_full_window_leaves_every_byte_readable(rig, monkeypatch):
    rig.write(0, 0, random.Random(7).randbytes(CAPACITY))
    rig.write(1, 0, random.Random(8).randbytes(CAPACITY))
    window = rig.windows[0]
    rig.spaces[1].commit(window, BASE, 64 * KIB, Interleave(1, 256), 0, 0)

    def full(self, offset, size):
        raise MediumFull("full")

    monkeypatch.setattr(Medium, "reserve", full)
    with pytest.raises(MediumFull):
        rig.spaces[0].commit(window, BASE, 64 * KIB, Interleave(2, 256), 0, 0)
    assert rig.spaces[0].commitments == ()
    assert [bytes(model) for model in rig.model] == [space.read(0, CAPACITY) for space in rig.spaces[:2]] + [
        bytes(CAPACITY)
    ]


def test_persistent_capacity_does_not_rest_where_it_would_be_lost(tmp_path):
    with Medium.open(tmp_path / "d", CAPACITY) as home, Medium.memfd("w", WINDOW) as file:
        window = Window(BASE, WINDOW, file)
        space = DpaSpace(home, CAPACITY, persistent_from=64 * KIB)
        space.write(0, b"\1" * CAPACITY)
        with pytest.raises(PersistenceLost, match="DPA 0x10000 to 0x17fff is persistent and cannot rest in"):
            space.commit(window, BASE, CAPACITY, Interleave(), 0, 0)
        space.commit(window, BASE, 64 * KIB, Interleave(), 0, 0)
        space.release()
        space.persistent_from = 16 * KIB
        assert [(one.start, one.end) for one in window.residents] == [(0, 16 * KIB)]
        assert space.read(0, CAPACITY) == b"\1" * CAPACITY
        assert home.read(0, CAPACITY) == bytes(16 * KIB) + b"\1" * (CAPACITY - 16 * KIB)
        assert DpaSpace(home, CAPACITY).persistent_from == 0
        with pytest.raises(AddressError, match="persistent from DPA"):
            space.persistent_from = CAPACITY + 1


def test_names_and_sizes_are_checked(rig):
    window = rig.windows[0]
    rig.spaces[0].attach(window)
    rig.spaces[0].attach(window)
    with Medium.memfd("other", KIB) as home:
        with pytest.raises(ResidencyError, match="two devices are named d0"):
            DpaSpace(home, KIB, "d0", windows=(window,))
        with pytest.raises(AddressError, match="a capacity of 0x401"):
            DpaSpace(home, KIB + 1)
        with pytest.raises(MediumUnfit, match="0x800 bytes, its medium other has 0x400"):
            Window(0, 2 * KIB, home)
        with pytest.raises(AddressError, match="below 2\\*\\*52"):
            Window(1 << 52, KIB, home)
    for use in (
        rig.spaces[0].read,
        rig.spaces[0].clear,
        rig.spaces[0].fill,
        lambda a, n: rig.spaces[0].write(a, bytes(n)),
    ):
        with pytest.raises(AddressError, match="d0: 0x2 bytes at DPA 0x17fff"):
            use(CAPACITY - 1, 2)


def test_stripes_that_map_alike_are_equal():
    assert Stripe(0x1000, Interleave(1, 4096), 0, 0x1000) == Stripe(0, Interleave(1, 256), 0, 0)
    assert Stripe(0x400, Interleave(2, 256), 1, 0x200) == Stripe(0, Interleave(2, 256), 1, 0)
    assert Stripe(0x400, Interleave(2, 256), 1, 0x100) != Stripe(0, Interleave(2, 256), 1, 0)


def test_threads_that_commit_across_each_other_and_read_meanwhile(rig):
    for device in range(3):
        rig.write(device, 0, random.Random(device).randbytes(CAPACITY))
    failures = []

    def work(device):
        generator = random.Random(device)
        space = rig.spaces[device]
        try:
            for _ in range(25):
                window = generator.choice(rig.windows)
                space.release()
                space.commit(window, window.base, 128 * KIB, Interleave(2, 256), generator.randrange(2), 0)
                assert space.read(0, CAPACITY) == rig.model[device]
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(device,)) for device in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(500)
    assert failures == []
    rig.check()


@pytest.mark.parametrize(
    "interleave",
    [
        Interleave(3, 256),
        Interleave(6, 512),
        Interleave(12, 256),
        Interleave(4, 256, MAPS),
        Interleave(2, 4096),
    ],
    ids=repr,
)
def test_writes_and_clears_of_any_size_within_a_share(rig, interleave):
    generator = random.Random(9)
    share = min(CAPACITY, WINDOW // interleave.round * interleave.granularity)
    rig.spaces[0].commit(rig.windows[0], BASE, share * interleave.ways, interleave, 1, 0)
    for _ in range(150):
        dpa = generator.randrange(share)
        size = min(generator.choice([1, 300, 1500, 5000, 20000]), share - dpa)
        if generator.random() < 0.6:
            rig.spaces[0].clear(dpa, size)
            rig.model[0][dpa : dpa + size] = bytes(size)
        else:
            rig.write(0, dpa, generator.randbytes(size))
        assert rig.spaces[0].read(0, CAPACITY) == rig.model[0]
    rig.check_places()


@pytest.mark.parametrize("interleave", [Interleave(1), Interleave(3, 256), Interleave(2, 4096)], ids=repr)
def test_bytes_that_others_left_in_a_place_never_show(rig, interleave):
    space, window = rig.spaces[0], rig.windows[0]
    share = 16 * KIB
    rig.write(0, 5 * KIB, b"mine")
    window.medium.write(0, b"\xee" * WINDOW)  # a guest stored where no device was
    space.commit(window, BASE, share * interleave.ways, interleave, 0, 0)
    assert space.read(0, CAPACITY) == rig.model[0]
    space.home.write(0, b"\xee" * share)  # as an eviction that met a full disk leaves it
    rig.spaces[1].commit(window, BASE, CAPACITY, Interleave(), 0, 0)
    assert space.parts(0, share)[0].window is None
    assert space.read(0, CAPACITY) == rig.model[0]
