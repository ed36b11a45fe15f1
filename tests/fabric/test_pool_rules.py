"""What a topology may say of its pool, and what each slip is told."""

import textwrap

import pytest

from softcxl.fabric.topology import Pool, TopologyError, loads

MIB, GIB = 1 << 20, 1 << 30

GOOD = """\
devices:
  mem0: {volatile: 1GiB}
  mem1: {volatile: 256MiB, persistent: 256MiB}
  mem2: {volatile: 256MiB}
  shared: {type: mld, volatile: 1GiB, logical_devices: [256MiB, 256MiB, 0]}
  boss: {type: switch-cci, switch: rack}
  late: {dynamic: [{length: 256MiB}]}
switches:
  rack:
    ports: [shared, mem1]
    virtual: {left: {ports: [shared.0, null]}}
hosts:
  alpha: {bridges: {hb0: {ports: [left, mem2, boss]}}}
pool:
  memory: [mem0, mem1, shared.1]
  arena: 64MiB
  lease: 500ms
  quotas: {trainer: 1GiB, "*": 64MiB}
"""


def pool_of(text):
    return loads(text).pool


def problem(old, new):
    assert old in GOOD
    with pytest.raises(TopologyError) as caught:
        loads(textwrap.dedent(GOOD.replace(old, new, 1)), "t.yaml")
    first = caught.value.problems[0]
    return f"{first.path}: {first.message}"


def test_a_good_pool_is_read():
    pool = pool_of(GOOD)
    assert pool == Pool(
        memory=["mem0", "mem1", "shared.1"],
        arena=64 * MIB,
        lease="500ms",
        quotas={"trainer": GIB, "*": 64 * MIB},
    )
    assert pool.lease_seconds == 0.5


def test_what_is_not_said_has_a_default():
    pool = pool_of("devices: {mem0: {volatile: 256MiB}}\npool: {memory: [mem0]}")
    assert (pool.arena, pool.lease_seconds, pool.quotas) == (GIB, 10.0, {})


def test_no_pool_is_none():
    assert loads("devices: {mem0: {volatile: 256MiB}}").pool is None


@pytest.mark.parametrize(
    ("given", "seconds"), [("10", 10), ("0.1", 0.1), ("250ms", 0.25), ("2min", 120), ("1.5s", 1.5)]
)
def test_leases(given, seconds):
    text = f"devices: {{mem0: {{volatile: 256MiB}}}}\npool: {{memory: [mem0], lease: {given}}}"
    assert pool_of(text).lease_seconds == seconds


MEMORY = "[mem0, mem1, shared.1]"

SLIPS = {
    "unknown device": (MEMORY, "[mem9]", "pool.memory[0]: 'mem9' is no device; did you mean 'mem2'?"),
    "far from any": (MEMORY, "[zzzz]", "pool.memory[0]: 'zzzz' is no device; there are mem0, mem1"),
    "a switch": (MEMORY, "[rack]", "pool.memory[0]: 'rack' is no device"),
    "twice": (MEMORY, "[mem0, mem1, mem0]", "pool.memory[2]: mem0 is given twice, first at pool.memory[0]"),
    "a host's": (MEMORY, "[mem2]", "pool.memory[0]: mem2 is a host's, at hosts.alpha; what the pool has no host"),
    "bound": (MEMORY, "[shared.0]", "pool.memory[0]: shared.0 is a host's, at left.ports[0]"),
    "which one": (MEMORY, "[shared]", "pool.memory[0]: shared has several logical devices; say which one"),
    "out of range": (MEMORY, "[shared.3]", "pool.memory[0]: shared has 3 logical devices, shared.0 to shared.2"),
    "empty one": (MEMORY, "[shared.2]", "pool.memory[0]: shared.2 has no capacity at first"),
    "no logical devices": (MEMORY, "[mem0.1]", "pool.memory[0]: mem0 has no logical devices; say mem0"),
    "mailbox cci": (MEMORY, "[boss]", "pool.memory[0]: boss is a switch's mailbox CCI, and has no memory"),
    "dynamic only": (MEMORY, "[late]", "pool.memory[0]: late has dynamic capacity only"),
    "a file": ("persistent: 256MiB}", "persistent: 256MiB, file: m}", "pool.memory[1]: mem1 has a `file`"),
    "no memory": (MEMORY, "[]", "pool.memory: has 0 entries"),
    "memory absent": (f"  memory: {MEMORY}\n", "", "pool.memory: is missing; it is a list"),
    "bad name": (MEMORY, "['1 2']", "pool.memory[0]: '1 2' is not a device's name"),
    "null": (MEMORY, "[null]", "pool.memory[0]: must be a device's name"),
    "unknown key": ("arena", "arenas", "pool: unknown key 'arenas'; did you mean 'arena'?"),
    "arena too small": ("64MiB\n", "4KiB\n", "pool.arena: 4KiB is not a multiple of 1MiB from 1MiB to"),
    "arena of nothing": ("64MiB\n", "0\n", "pool.arena: 0B is not a multiple of 1MiB"),
    "arena of words": ("64MiB\n", "much\n", "pool.arena: 'much' is not a size"),
    "lease of words": ("500ms", "long", "pool.lease: 'long' is not seconds like 10 or 0.5, or a duration"),
    "lease too short": ("500ms", "99ms", "pool.lease: '99ms' is not from 100ms to a day"),
    "lease too long": ("500ms", "86401", "pool.lease: '86401' is not from 100ms to a day"),
    "negative lease": ("500ms", "-1", "pool.lease: '-1' is not seconds"),
    "quota too large": ("trainer: 1GiB", "trainer: 2GiB", "pool.quotas.trainer: 2GiB is more than the pool has"),
    "quota of words": ("trainer: 1GiB", "trainer: all", "pool.quotas.trainer: 'all' is not a size"),
    "negative quota": ("trainer: 1GiB", "trainer: -1", "pool.quotas.trainer: '-1'"),
    "nameless quota": ("trainer: 1GiB", '"": 1GiB', "pool.quotas.: '' is not a client's name"),
    "long name": ("trainer: 1GiB", "x" * 64 + ": 1GiB", "is not a client's name of at most 63 letters, or *"),
    "not a mapping": (GOOD[GOOD.index("pool:") :], "pool: [mem0]\n", "pool: must be a mapping with the keys memory"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "says"), SLIPS.values(), ids=SLIPS)
def test_slips(old, new, says):
    assert says in problem(old, new)


def test_a_quota_of_nothing_is_one():
    assert pool_of(GOOD.replace("trainer: 1GiB", "trainer: 0")).quotas["trainer"] == 0


def test_a_pool_of_broken_devices_is_not_complained_of_twice():
    with pytest.raises(TopologyError) as caught:
        loads(GOOD.replace("mem0: {volatile: 1GiB}", "mem0: {volatile: 1MiB}"))
    assert [one.path for one in caught.value.problems] == ["devices.mem0.volatile"]
