"""Scenario files: what is done to the devices of a fabric, when, and what is expected then.

`load` reads a YAML file, `loads` a string, each for a topology; they return a `Scenario` that holds, every step with
its device, or raise `ScenarioError` with every problem found, at its line and column.

>>> from softcxl.fabric import topology
>>> fabric = topology.loads("devices: {mem0: {volatile: 256MiB}}")
>>> loads("steps: [{poison: {address: 0x40}}]", fabric).steps[0].device
'mem0'
>>> loads("steps: [{poison: {adress: 0x40}}]", fabric)  # doctest: +ELLIPSIS
Traceback (most recent call last):
softcxl.fabric.errors.ScenarioError: <scenario>:1:19: steps[0].poison: unknown key 'adress'; did you mean 'address'?
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect

from softcxl.device.injected_event import KINDS, event_record
from softcxl.fabric import limits
from softcxl.fabric.errors import Problem, ScenarioError
from softcxl.fabric.keys import Topology
from softcxl.fabric.limits import Fault, Path, closest
from softcxl.fabric.reader import Reader
from softcxl.fabric.scenario_keys import ACTIONS, Scenario, Send, Step
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.cxl.component import RasCorrectableStatus, RasUncorrectableStatus
from softcxl.spec.cxl.events import DeviceHealth
from softcxl.spec.pci.extended import CorrectableErrorStatus, UncorrectableErrorStatus
from softcxl.wire import Register
from softcxl.wire.sizes import parse_number, shorten

CODES = {code.name.lower().replace("_", "-"): code for code in ReturnCode}
NO_ANSWER = "none"
HEALTH = [one.name for one in DeviceHealth.__layout__.fields if one.kind != "reserved"]
_STATUS: dict[tuple[str, str], type[Register]] = {
    ("cxl", "correctable"): RasCorrectableStatus,
    ("cxl", "uncorrectable"): RasUncorrectableStatus,
    ("pcie", "correctable"): CorrectableErrorStatus,
    ("pcie", "uncorrectable"): UncorrectableErrorStatus,
}
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0}


def load(path: str | FilePath, topology: Topology) -> Scenario:
    """The scenario in the file `path`. `ScenarioError` also where the file cannot be read."""
    path = FilePath(path)
    try:
        text = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ScenarioError([Problem(str(path), 0, 0, "", f"cannot be read: {reason}")]) from error
    return loads(text, topology, str(path))


def loads(text: str | bytes, topology: Topology, name: str = "<scenario>") -> Scenario:
    """The scenario in `text`; `name` stands for the file in messages."""
    reader = Reader(name, "scenario", "steps")
    scenario = reader.read(text, Scenario)
    if scenario is not None:
        reader.judge(limits.faults(scenario, inspect.type_info(Scenario)))
        reader.judge(_devices(scenario, topology))
        for part, steps in (("before", scenario.before), ("steps", scenario.steps)):
            for number, step in enumerate(steps):
                reader.judge(_step(step, (part, number), before=part == "before"))
    if scenario is None or reader.problems:
        raise ScenarioError(reader.problems)
    return _filled(scenario, topology)


# -- values that are written as text ---------------------------------------------------------------------------------


def seconds(text: str) -> float:
    """`500ms`, `2s` or `1min` in seconds, of text that a scenario has had checked."""
    match = re.fullmatch(r"([0-9.]+)(ms|s|min)", text)
    assert match is not None, text
    return float(match[1]) * _SECONDS[match[2]]


def chance(text: str | None) -> float:
    """A probability."""
    if text is None:
        return 1.0
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def opcode(text: str) -> int | None:
    """An opcode, None for any."""
    return None if text == "any" else int(text[:4], 16)


def value(name: str, text: str) -> Any:
    """What an item called `name` has for a value: a number, a UUID, or bytes."""
    if name == "identifier":
        return UUID(text)
    if name in ("data", "component_identifier", "correction_mask", "tag"):
        return bytes.fromhex(text)
    return -parse_number(text[1:]) if text.startswith("-") else parse_number(text)


def is_kind(kind: str | None, identifier: UUID) -> bool:
    """Whether a record with that identifier is of a kind of event; None: any. A vendor's are those of nobody else."""
    if kind == "vendor":
        return all(identifier != own for name, (_, own) in KINDS.items() if name != "vendor")
    return kind is None or identifier == KINDS[kind][1]


def values(fields: Mapping[str, str]) -> dict[str, Any]:
    """All values of a mapping."""
    return {name: value(name, text) for name, text in fields.items()}


# -- rules -----------------------------------------------------------------------------------------------------------


def _known(topology: Topology) -> list[str]:
    """The devices that something can happen to, logical devices among them."""
    pools = topology.pools.items()
    logical = [f"{name}.{number}" for name, one in pools for number in range(len(one.logical_devices))]
    return [*topology.memory, *logical]


def _devices(scenario: Scenario, topology: Topology) -> Iterator[Fault]:
    known = _known(topology)
    named: list[tuple[Path, str | None]] = [(("device",), scenario.device)]
    for part, steps in (("before", scenario.before), ("steps", scenario.steps)):
        for number, step in enumerate(steps):
            named.append(((part, number, "device"), step.device))
            needs = step.run is None and (step.expect is None or step.expect.guest is None)
            if needs and step.device is None and scenario.device is None and len(known) != 1:
                yield Fault((part, number), f"names no `device`, of which there are {', '.join(known)[:200]}")
    for path, name in named:
        if name is not None and name not in known:
            hint = closest(name, known) or f"; there are {', '.join(known)[:200]}"
            yield Fault(path, f"{shorten(name)} is no device of the topology{hint}")


def _step(step: Step, at: Path, *, before: bool) -> Iterator[Fault]:
    done = [key for key in ACTIONS if getattr(step, key) is not None]
    if len(done) != 1:
        what = f"does {' and '.join(done)}" if done else "does nothing"
        meant = tuple((*at, key) for key in ACTIONS)
        yield Fault(at, f"{what}; a step does one of {', '.join(ACTIONS)}", meant)
    when = [key for key in ("after", "every", "on") if getattr(step, key) is not None]
    if len(when) > 1:
        yield Fault(at, f"has {' and '.join(when)}; a step has at most one of after, every, on")
    if before:
        for key in (*when, "expect", "run", "send"):
            if getattr(step, key) is not None:
                yield Fault((*at, key), "has no place before the host starts")
    if step.count is not None and not (step.every or step.on):
        yield Fault((*at, "count"), "goes with `every` or `on`")
    if step.within is not None and step.expect is None:
        yield Fault((*at, "within"), "goes with `expect`")
    if step.every is not None and not seconds_of(step.every):
        yield Fault((*at, "every"), "is no time at all")
    for key in ("run", "send", "expect"):
        if (step.every or step.on) and getattr(step, key) is not None:
            yield Fault((*at, key), "does not go with `every` or `on`, which act on devices alone")
    yield from _action(step, at)


def seconds_of(text: str) -> float:
    """`seconds` of text that may not have been checked: 1 where it is none."""
    try:
        return seconds(text)
    except (AssertionError, ValueError):
        return 1.0


def _action(step: Step, at: Path) -> Iterator[Fault]:
    if step.event is not None:
        yield from _event(step.event.type, step.event.fields, (*at, "event"))
    if step.health is not None:
        yield from _health(step.health, (*at, "health"))
    if step.send is not None:
        yield from _send(step.send, (*at, "send"))
    if step.error is not None:
        register = _STATUS.get((step.error.protocol, step.error.severity))
        names = [] if register is None else [field.name for field in register.__layout__.fields]
        if names and step.error.name not in names:
            hint = closest(step.error.name, names) or f"; there are {', '.join(names)}"
            yield Fault((*at, "error", "name"), f"{shorten(step.error.name)} is no such error{hint}")
    if step.fault is not None:
        given, fault = (*at, "fault"), step.fault
        needed = {"fail": "code", "delay": "duration", "shorten": "size", "lengthen": "size"}.get(
            fault.effect
        )
        for key, shown in (("code", "code"), ("duration", "for"), ("size", "size")):
            there = getattr(fault, key) is not None
            if there and key != needed:
                yield Fault((*given, shown), f"does not go with `effect: {fault.effect}`")
            elif key == needed and not there:
                yield Fault((*given, shown), f"is missing; `effect: {fault.effect}` needs it")
        if fault.code is not None:
            yield from _code(fault.code, (*given, "code"))
        if fault.duration is not None and not seconds_of(fault.duration):
            yield Fault((*given, "for"), "is no time at all")
        if fault.effect == "lengthen" and fault.size == 0:
            yield Fault((*given, "size"), "0 bytes more are none")
        if fault.probability is not None and not _likely(fault.probability):
            yield Fault((*given, "probability"), "is 0; leave the fault away")
    if step.expect is not None:
        yield from _expect(step, (*at, "expect"))


def _likely(text: str) -> bool:
    try:
        return chance(text) > 0
    except ValueError:
        return True


def _expect(step: Step, at: Path) -> Iterator[Fault]:
    expect = step.expect
    assert expect is not None
    kinds = type(expect).__struct_fields__
    given = [key for key in kinds if getattr(expect, key) is not None]
    if len(given) != 1:
        meant = tuple((*at, key) for key in kinds)
        yield Fault(at, f"expects {' and '.join(given) or 'nothing'}; it is one of {', '.join(kinds)}", meant)
    if expect.answer is not None and expect.answer.code is not None:
        yield from _code(expect.answer.code, (*at, "answer", "code"))
    if expect.send is not None:
        yield from _send(expect.send, (*at, "send"))
    if expect.health is not None:
        yield from _health(expect.health, (*at, "health"))
    if expect.guest is not None and expect.guest.output is not None:
        try:
            re.compile(expect.guest.output)
        except (re.error, RecursionError, OverflowError) as error:
            yield Fault(
                (*at, "guest", "output"), f"{shorten(expect.guest.output)} is no regular expression: {error}"
            )


def _send(send: Send, at: Path) -> Iterator[Fault]:
    if send.opcode == "any":
        yield Fault((*at, "opcode"), "any command cannot be sent; write which one")
    if send.code is not None and send.code != NO_ANSWER:
        yield from _code(send.code, (*at, "code"))
    if send.code not in (None, "success") and send.output:
        yield Fault((*at, "output"), "only a command that succeeds has an output payload")


def _code(text: str, at: Path) -> Iterator[Fault]:
    if text not in CODES:
        hint = closest(text, CODES) or f"; there are {', '.join(CODES)}"
        yield Fault(at, f"{shorten(text)} is no return code{hint}")


def _event(kind: str, fields: Mapping[str, str], at: Path) -> Iterator[Fault]:
    for name, text in fields.items():
        try:
            event_record(None, kind, {name: value(name, text)})
        except (ValueError, OverflowError) as error:
            yield Fault((*at, "fields", name), str(error), ((*at, "type"),))


def _health(fields: Mapping[str, str], at: Path) -> Iterator[Fault]:
    for name, text in fields.items():
        if name not in HEALTH:
            hint = closest(name, HEALTH) or f"; there are {', '.join(HEALTH)}"
            yield Fault((*at, name), f"{shorten(name)} is no item of the health{hint}")
            continue
        try:
            DeviceHealth(**{name: value(name, text)}).pack()
        except Exception as error:  # noqa: BLE001  packing fails in many ways, all of which are the value's fault
            yield Fault((*at, name), f"{shorten(text)} does not fit: {error}")


def _filled(scenario: Scenario, topology: Topology) -> Scenario:
    known = _known(topology)
    usual = scenario.device or (known[0] if len(known) == 1 else None)

    def filled(step: Step) -> Step:
        return msgspec.structs.replace(step, device=step.device or usual)

    return msgspec.structs.replace(
        scenario, before=list(map(filled, scenario.before)), steps=list(map(filled, scenario.steps))
    )
