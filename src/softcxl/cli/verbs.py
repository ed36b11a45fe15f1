"""What can be done to a host, by name: each verb once, for a fabric of this process and for a server's.

A verb's fields are its arguments, of types that JSON has; its `perform` raises what cannot be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, ClassVar, Literal
from uuid import UUID

from softcxl.cli import grant_verbs
from softcxl.fabric import scenario
from softcxl.fabric.errors import NotHere
from softcxl.fabric.hosts import Call, Verb
from softcxl.fabric.pace import Real
from softcxl.fabric.play import Player
from softcxl.fabric.tree import to_json
from softcxl.host.explain import Explanation
from softcxl.host.iomem import resources
from softcxl.host.list import Include
from softcxl.host.sysfs import shown_of
from softcxl.host.sysfs.node import Attribute, Link
from softcxl.host.traces import to_json as event_json
from softcxl.host.tree import tree

#: More of what there is than this is counted, not named.
_NAMED = 16
#: Seconds that a server lets a client wait: it ends no sooner when it is told to.
_LONGEST_WAIT = 5.0


@dataclass(frozen=True)
class List:
    """`softcxl list`."""

    include: Include = field(default_factory=Include)
    verbose: int = 0

    def perform(self, call: Call) -> None:
        system, include = call.system, self.include
        memdevs = [(one.name, one.number, one.host) for one in system.memdevs.values()]
        _check("memory device", include.only_memdevs, memdevs)
        decoders = [
            *((one.name,) for one in system.root.decoders),
            *((one.name,) for port in system.ports for one in port.decoders),
            *((one.name,) for endpoint in system.endpoints for one in endpoint.decoders),
        ]
        _check("decoder", include.only_decoders, decoders)
        _check("region", include.only_regions, [(one.name, one.number) for one in system.regions.values()])
        _say_json(call, system.listing(include, self.verbose))


@dataclass(frozen=True)
class Tree:
    """`softcxl tree`."""

    as_json: bool = False

    def perform(self, call: Call) -> None:
        if self.as_json:
            _say_json(call, call.system.listing(verbose=3))
        else:
            call.say(tree(call.system, f"host {call.host}"))


@dataclass(frozen=True)
class Explain:
    """`softcxl explain`: a host physical address, a device's DPA or an offset in a region."""

    address: int
    memdev: str | None = None
    region: str | None = None
    as_json: bool = False

    def perform(self, call: Call) -> None:
        system, address = call.system, self.address
        if self.memdev is not None:
            hpa = system.translate(self.memdev, address)
            if hpa is None:
                raise NotHere(f"DPA {address:#x} of {self.memdev} is mapped nowhere")
            address = hpa
        if self.region is not None:
            _check("region", [self.region], [(one,) for one in system.regions])
            within = system.regions[self.region]
            if address >= within.size:
                raise NotHere(
                    f"offset {address:#x} is not within the {within.size:#x} bytes of {self.region}"
                )
            address += within.hpa
        found = system.explain(address)
        if self.as_json:
            _say_json(call, _plain(found))
        else:
            call.say(found)


@dataclass(frozen=True)
class CreateRegion:
    """`softcxl region create`; `size` in bytes."""

    memdevs: tuple[str, ...] | None = None
    decoder: str | None = None
    size: int | None = None
    ways: int | None = None
    granularity: int | None = None
    type: Literal["ram", "pmem"] | None = None
    uuid: UUID | None = None

    def perform(self, call: Call) -> None:
        made = call.system.create_region(
            self.memdevs,
            decoder=self.decoder,
            size=self.size,
            ways=self.ways,
            granularity=self.granularity,
            type=self.type,
            uuid=self.uuid,
        )
        include = Include(regions=True, targets=True, only_regions=frozenset({made.name}))
        _say_json(call, call.system.listing(include)[0])


@dataclass(frozen=True)
class DestroyRegion:
    """`softcxl region destroy`: of `regions`, or of all where that word is among them."""

    regions: tuple[str, ...]
    as_json: bool = False

    def perform(self, call: Call) -> None:
        system = call.system
        names = list(system.regions) if "all" in self.regions else list(dict.fromkeys(self.regions))
        _check("region", names, [(one,) for one in system.regions])
        if not names:
            call.complain("there are no regions")
        names.sort(key=lambda one: system.regions[one].hpa, reverse=True)
        for name in names:
            system.destroy_region(name)
            if not self.as_json:
                call.say(f"destroyed {name}")
        if self.as_json:
            _say_json(call, [{"region": name} for name in names])


@dataclass(frozen=True)
class ShowSysfs:
    """`softcxl sysfs`; with `write` an attribute is written, as text."""

    path: str = "bus/cxl/devices"
    write: str | None = None
    as_json: bool = False

    def perform(self, call: Call) -> None:
        sysfs = call.system.sysfs
        if self.write is not None:
            sysfs[self.path] = self.write
        elif self.as_json:
            _say_json(call, sysfs.tree(self.path))
        else:
            for where, one in sysfs.walk(self.path):
                if where:
                    call.say(f"{where}{_text(one)}")
                else:
                    call.out(sysfs.read_bytes(self.path))


@dataclass(frozen=True)
class Iomem:
    """`softcxl iomem`."""

    as_json: bool = False

    def perform(self, call: Call) -> None:
        found = list(resources(call.system))
        if self.as_json:
            _say_json(call, [asdict(one) for one in found])
            return
        for one in found:
            call.say(one)


@dataclass(frozen=True)
class Events:
    """`softcxl events`; with `poison` what is poisoned is listed first."""

    poison: bool = False

    def perform(self, call: Call) -> None:
        system = call.system
        if self.poison:
            for one in system.memdevs.values():
                if (where := f"bus/cxl/devices/{one.name}/trigger_poison_list") in system.sysfs:
                    system.sysfs[where] = 1
        for found in system.events():
            call.say(json.dumps(event_json(found), separators=(",", ":")))


@dataclass(frozen=True)
class Doors:
    """`softcxl doors`; with `begins` for a machine that begins with what is there."""

    close: bool = False
    begins: bool = False

    def perform(self, call: Call) -> None:
        if self.close:
            call.hosts.close_doors(call.host)
        else:
            _say_json(call, call.doors(begins=self.begins))


@dataclass(frozen=True)
class Visit:
    """What a guest of the host is to do: "orders" for its machine (`softcxl.fabric.visitor.Order`); with `wait` as soon
    as there are any, or none after a while. `done` has the number of each order that is over, and what went wrong, or
    "". Whoever `comes` is the guest's machine, as long as its connection lasts; others report, and have no orders.
    """

    waits: ClassVar[bool] = True
    done: tuple[tuple[int, str], ...] = ()
    wait: bool = True
    comes: bool = True

    def perform(self, call: Call) -> None:
        visitor, caller = call.hosts.visitors.get(call.host), call.caller
        if visitor is None or caller is None:
            raise NotHere(f"{call.host} has no doors that a guest could come by; softcxl doors opens them")
        for number, problem in self.done:
            visitor.told(number, problem)
        orders = []
        if self.comes:
            if visitor.leave not in caller.leaving:
                visitor.arrive()
                caller.leaving.append(visitor.leave)
            orders = visitor.take(caller.gone, *(() if self.wait else (0.0,)))
        _say_json(call, {"orders": [asdict(one) for one in orders]})


@dataclass(frozen=True)
class Manager:
    """Where a fabric manager comes in: `address`, `dialect`, and the name of what has each endpoint ID, as JSON."""

    of_fabric: ClassVar[bool] = True

    def perform(self, call: Call) -> None:
        if not call.hosts.manager:
            raise NotHere(
                f"no fabric manager can come to {call.hosts.name}; softcxl serve --fm says where one can"
            )
        _say_json(call, call.hosts.manager)


@dataclass(frozen=True)
class Topology:
    """The topology that is live, as `softcxl check --json` has it. Of a server only: who has the file has `check`."""

    def perform(self, call: Call) -> None:
        call.say(to_json(call.hosts.fabric.topology).decode())


@dataclass(frozen=True)
class Journal:
    """What happened to the fabric after the row `since`: up to `count` rows as JSON. Where there is none yet it waits
    for one, up to `wait` seconds."""

    of_fabric: ClassVar[bool] = True
    since: int = 0
    count: int = 1000
    wait: float = 0.0

    def perform(self, call: Call) -> None:
        journal = call.hosts.fabric.store.journal
        journal.wait(self.since, min(self.wait, _LONGEST_WAIT))
        found = islice(journal.since(self.since), max(self.count, 0))
        call.say(json.dumps([asdict(one) for one in found], separators=(",", ":")))


@dataclass(frozen=True)
class Inject:
    """`softcxl inject`: the scenario in `text`, a file that is called `name`, played in real time as long as who asks
    stays; its report as JSON. What it has injected stays."""

    of_fabric: ClassVar[bool] = True
    text: str
    name: str

    def perform(self, call: Call) -> None:
        fabric = call.hosts.fabric
        given = scenario.loads(self.text, fabric.topology, self.name)
        pace = Real(fabric.clock)
        if call.caller is not None:
            call.caller.leaving.append(pace.stop.set)
        player = Player(fabric, given, pace)
        with player.listening():
            player.before()
            player.steps()
        _say_json(call, player.report.plain())


#: Every verb, by the words that call it on the command line and in requests.
VERBS: dict[str, type[Verb]] = {
    "list": List,
    "tree": Tree,
    "explain": Explain,
    "region create": CreateRegion,
    "region destroy": DestroyRegion,
    "sysfs": ShowSysfs,
    "iomem": Iomem,
    "events": Events,
    "doors": Doors,
    "topology": Topology,
    "visit": Visit,
    "fm": Manager,
    "fm grant": grant_verbs.Grant,
    "fm grants": grant_verbs.Grants,
    "fm renew": grant_verbs.Renew,
    "fm revoke": grant_verbs.Revoke,
    "journal": Journal,
    "inject": Inject,
}


def _check(kind: str, given: Iterable[str], known: Iterable[tuple[object, ...]]) -> None:
    """What is named must be there: an empty list for a slip of the pen would look like an answer."""
    known = list(known)
    for name in given:
        if not any(name in map(str, words) for words in known):
            names = ", ".join(str(words[0]) for words in known[:_NAMED]) or "none"
            more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
            raise NotHere(f"{name} is no {kind} here; there are {names}{more}")


def _say_json(call: Call, answer: Any) -> None:
    """An answer as json-c prints it for cxl: no space after a colon."""
    call.say(json.dumps(answer, indent=2, separators=(",", ":"), ensure_ascii=False))


def _plain(found: Explanation) -> dict[str, Any]:
    region = found.region
    return {
        "hpa": found.hpa,
        "region": region and region.name,
        "offset": region and found.hpa - region.hpa,
        "memdev": found.memdev.name,
        "serial": found.memdev.serial,
        "dpa": found.dpa,
        "steps": [asdict(step) for step in found.steps],
    }


def _text(one: Attribute | Link) -> str:
    if isinstance(one, Link):
        return f" -> /sys/{one.target}"
    shown = shown_of(one)
    if shown is None:
        return " (write only)"
    if isinstance(shown, dict):
        return f": {shown['errno']}"
    # a value of several lines, or of bytes, is one line here
    return f": {json.dumps(shown) if chr(10) in shown else shown}"
