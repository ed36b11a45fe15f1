"""What is asked of a server about memory that hosts have for themselves: verbs of `softcxl fm grant` and others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from softcxl.fabric.errors import NotHere
from softcxl.fabric.hosts import Call


def _leases(call: Call) -> Any:
    if call.hosts.leases is None:
        raise NotHere(
            f"{call.hosts.name} grants no memory to hosts: that takes a `pool`, hosts of virtual switches, and a door "
            "for fabric managers"
        )
    return call.hosts.leases


def _say(call: Call, answer: Any) -> None:
    call.say(json.dumps(answer))


@dataclass(frozen=True)
class Grants:
    """`softcxl fm grants`."""

    of_fabric: ClassVar[bool] = True

    def perform(self, call: Call) -> None:
        _say(call, _leases(call).all())


@dataclass(frozen=True)
class Grant:
    """`softcxl fm grant`; `size` in bytes, `lease` in seconds."""

    of_fabric: ClassVar[bool] = True
    size: int
    to: str
    lease: float = 10.0
    kind: Literal["ld", "extents"] | None = None

    def perform(self, call: Call) -> None:
        made = _leases(call).grant(self.size, self.to, self.lease, self.kind)
        _say(call, next(one for one in _leases(call).all() if one["number"] == made.number))


@dataclass(frozen=True)
class Renew:
    """`softcxl fm renew`."""

    of_fabric: ClassVar[bool] = True
    number: int

    def perform(self, call: Call) -> None:
        _leases(call).renew(self.number)
        _say(call, next(one for one in _leases(call).all() if one["number"] == self.number))


@dataclass(frozen=True)
class Revoke:
    """`softcxl fm revoke`."""

    of_fabric: ClassVar[bool] = True
    number: int

    def perform(self, call: Call) -> None:
        _leases(call).release(self.number)
        _say(call, {"number": self.number})
