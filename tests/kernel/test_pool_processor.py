"""A guest whose atomic operations are none may not share memory: it is told so."""

from __future__ import annotations

from pathlib import Path

from softcxl import boot
from softcxl.fm.pool.guests import Guests
from softcxl.lab.parts import Parts
from softcxl.pool.layout import Plan
from tests.kernel.pooled import python, serving

MIB = 1 << 20
TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB}
  door: {type: pool-access}
pool: {memory: [mem0]}
hosts:
  alpha: {bridges: {hb0: {ports: [door]}}, memory: 768MiB}
"""
CONNECTS = """
import softcxl
try:
    softcxl.connect()
except softcxl.pool.errors.Refused as error:
    print(error)
"""


def test_an_emulated_machine_that_can_have_one_processor_only(parts: Parts, tmp_path: Path) -> None:
    plan = Plan(slots=8, regions=64, heap=MIB)
    with serving(tmp_path, TOPOLOGY, plan) as (fabric, server, _):
        fabric.access["door"].serve(Guests(server))
        try:
            with boot(fabric, "alpha", parts=parts, python=True, extra=["-smp", "1,maxcpus=1"]) as guest:
                assert "Start QEMU with -smp 1,maxcpus=2" in python(guest, CONNECTS)
        finally:
            fabric.access["door"].leave()
