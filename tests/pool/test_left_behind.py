"""A program that is killed leaves nothing: what `softcxl pool stat --json` says is what it said before it came."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from softcxl.cli.pool.stat import _whole
from tests.pool.served import Served, wait_until

HOLDS = {
    "a ring's producer": "end = pool.ring('ring').producer(); end.send(b'one')",
    "a ring's consumer": "end = pool.ring('ring').consumer(); end.receive(60)",
    "a part of a queue": "queue = pool.queue('queue'); queue.put(b'one'); queue.get(60)",
    "a queue that it waits at": (
        "queue = pool.queue('queue'); threading.Thread(target=queue.get, daemon=True).start()"
    ),
    "regions": "held = pool.allocate_many('4KiB', 300); more = pool.allocate('1MiB', replicas=3, atomic=True)",
    "a journal": "one = pool.allocate('4KiB', atomic=True); one.write(0, b'x' * 4096)",
    "a view of a region that is freed": "one = pool.allocate('64KiB'); view = one.view(); one.free()",
    "a view of another's": "view = pool.open('shared').view()",
    "a lock": "shared = pool.open('shared'); shared._native.lock()",
    "a lock, and a child of a fork": (
        "shared = pool.open('shared'); shared._native.lock()\n"
        "child = os.fork()\n"
        "if not child: os.close(1); signal.pause()\n"
        "print(child, flush=True)"
    ),
    "a gift that it took": "end = pool.ring('ring').consumer(); gift = end.receive_record(60).reference.region",
    "a gift that lies in a ring of its own": (
        "mine = pool.allocate('64KiB'); end = pool.ring('ring').producer()\n"
        "end.send_reference(mine, 0, 64, give=True)"
    ),
}

PROGRAM = """
import os, signal, sys, threading
from softcxl.pool.session import connect
pool = connect(sys.argv[1], name="killed")
{holds}
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("what", HOLDS)
def test_who_is_killed_leaves_nothing(served: Served, what: str) -> None:
    pool = served.client("resident")
    shared = pool.allocate("64KiB", name="shared", replicas=2)
    queue, ring = pool.queue("queue"), pool.ring("ring")
    takes = ".consumer()" in HOLDS[what]
    producer = ring.producer() if takes else None
    consumer = None if takes else ring.consumer()
    before = _whole(pool)
    if producer is not None and "gift" in what:
        producer.send_reference(pool.allocate("64KiB"), 0, 64, give=True)
    elif producer is not None:
        producer.send(b"one")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(holds=HOLDS[what]), served.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    forked = 0
    try:
        said = process.stdout.readline().strip()
        if said.isdigit():
            forked, said = int(said), process.stdout.readline().strip()
        assert said == "ready"
        assert _whole(pool) != before
        process.kill()
        process.wait(60)
        wait_until(lambda: len(served.server.names) == 1)
        shared.write(0, b"goes on", timeout=60)
        if consumer is not None and "gift" in what:
            given = consumer.receive_record(60).reference  # it is in its ring yet, for whoever takes it
            assert given is not None
            given.free()
        wait_until(lambda: _whole(pool)["sources"] == before["sources"])
        assert _whole(pool) == before
    finally:
        if forked:
            os.kill(forked, signal.SIGKILL)
        process.kill()
        process.communicate(timeout=60)
    queue.close()
