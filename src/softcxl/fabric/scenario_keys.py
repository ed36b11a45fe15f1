"""The keys of a scenario file: fields are the keys, annotations the limits, as in `softcxl.fabric.keys`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from softcxl.fabric.keys import LARGEST, FunctionName
from softcxl.fabric.limits import key as _key

DURATION = r"^[0-9]{1,7}(\.[0-9]{1,6})?(ms|s|min)$"
OPCODE = r"^([0-9A-Fa-f]{4}h|any)$"
TRIGGER = r"^(command +([0-9A-Fa-f]{4}h|any)|event +(informational|warning|failure|fatal|any))$"
CHANCE = r"^(0?\.[0-9]{1,9}|1(\.0{1,9})?|[0-9]{1,2}(\.[0-9]{1,6})?%|100%)$"
BYTES = r"^([0-9A-Fa-f]{2} ?)*$"

LogName = Literal["informational", "warning", "failure", "fatal", "dynamic_capacity"]
EventKind = Literal["general-media", "dram", "memory-module", "memory-sparing", "dynamic-capacity", "vendor"]
Value = Annotated[str, Meta(extra={"pattern": r"^[^\n]{1,200}$"})]
Fields = dict[str, Value]


class Lines(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Device addresses: the 64-byte lines that they touch."""

    address: Annotated[int, _key("the first device address", form="size", least=0, most=LARGEST)]
    length: Annotated[int, _key("how many bytes", form="size", least=1, most=LARGEST)] = 64


class Decay(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the media that decays: errors are corrected and logged, then its line is lost, until it is repaired."""

    address: Annotated[int, _key("the device address of the line", form="size", least=0, most=LARGEST)]
    scope: Annotated[
        Literal["cacheline", "row", "bank", "rank"], _key("how much is faulty, which a repair has to replace")
    ] = "row"
    every: Annotated[
        str | None,
        _key("how long from one error to the next; without this key 1s", form="duration", pattern=DURATION),
    ] = None
    endurance: Annotated[int, _key("how many errors are corrected before", least=0, most=1 << 20)] = 10
    nibbles: Annotated[
        int, _key("which nibbles of the data bus, one bit each", form="hex", least=1, most=0x3FF)
    ] = 1


class Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event record."""

    type: Annotated[EventKind, _key("which record it is")]
    log: Annotated[LogName, _key("the log it goes to")] = "failure"
    fields: Annotated[
        Fields,
        _key(
            "items of the record by name, as in `softcxl.spec.cxl.events`, and `dpa`, in bytes; numbers, but "
            "`identifier`, a UUID, and what is bytes, in hexadecimal",
            most=64,
        ),
    ] = field(default_factory=dict)


class Fault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is wrong with a command from now on."""

    command: Annotated[str, _key("which command", form="opcode", pattern=OPCODE)]
    effect: Annotated[
        Literal["fail", "hang", "delay", "garble", "shorten", "lengthen"],
        _key(
            "it `fail`s with `code` and is not carried out; it `hang`s until it is released; it is carried out after a "
            "`delay`, `for` that long; its output payload is random bytes (`garble`), ends after `size` bytes "
            "(`shorten`), or has `size` bytes more (`lengthen`)"
        ),
    ]
    code: Annotated[str | None, _key("the return code of `fail`, by name (`internal-error`)")] = None
    duration: Annotated[str | None, _key("how long a `delay` is", form="duration", pattern=DURATION)] = field(
        name="for", default=None
    )
    size: Annotated[int | None, _key("for `shorten` and `lengthen`, in bytes", least=0, most=1 << 20)] = None
    times: Annotated[
        int | None,
        _key("how many commands meet it; without this key all, until it is cleared", least=1, most=1 << 31),
    ] = None
    probability: Annotated[
        str | None, _key("of each command to meet it; without this key 1", form="chance", pattern=CHANCE)
    ] = None


class Corrected(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Errors that the device corrects, as one event."""

    address: Annotated[int, _key("the device address", form="size", least=0, most=LARGEST)]
    count: Annotated[int, _key("how many", least=1, most=(1 << 24) - 1)] = 1


class Error(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A protocol error that the device logs and reports."""

    name: Annotated[
        str,
        _key(
            "its bit in the status register, as in `softcxl.spec.cxl.component` or `softcxl.spec.pci.extended`"
        ),
    ]
    protocol: Annotated[Literal["cxl", "pcie"], _key("the CXL RAS capability, or AER")] = "cxl"
    severity: Annotated[Literal["correctable", "uncorrectable"], _key("which register")] = "uncorrectable"


class Send(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command to the device's mailbox; beside a guest, to its command interface, past the guest's driver."""

    opcode: Annotated[str, _key("which command", form="opcode", pattern=OPCODE)]
    payload: Annotated[str | None, _key("its input payload", form="bytes", pattern=BYTES)] = None
    code: Annotated[
        str | None,
        _key(
            "the return code that is expected, by name, or `none` where no answer is; without this key `success`"
        ),
    ] = None
    output: Annotated[
        str | None, _key("what the output payload is expected to begin with", form="bytes", pattern=BYTES)
    ] = None


class Logged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events that the device has logged since the scenario began, fetched by its host or not."""

    type: Annotated[EventKind | None, _key("which record; without this key any")] = None
    log: Annotated[LogName | None, _key("which log; without this key any")] = None
    count: Annotated[int, _key("how many at least; 0: none at all", least=0, most=1 << 20)] = 1


class Answered(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Commands that software has sent since the scenario began, with the answer it got."""

    command: Annotated[str, _key("which command", form="opcode", pattern=OPCODE)]
    code: Annotated[str | None, _key("the return code, by name; without this key any")] = None
    count: Annotated[int, _key("how many at least; 0: none at all", least=0, most=1 << 20)] = 1


class Poisoned(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Poison on the device's media."""

    lines: Annotated[int, _key("how many 64-byte lines of the range have it", least=0, most=1 << 40)]
    address: Annotated[int, _key("the first device address", form="size", least=0, most=LARGEST)] = 0
    length: Annotated[
        int | None,
        _key("how many bytes; without this key all that follow", form="size", least=1, most=LARGEST),
    ] = None


class Guest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command in the guest, and what is expected of it."""

    run: Annotated[str, _key("a line for the guest's shell")]
    status: Annotated[int | None, _key("its exit status; without this key 0", least=0, most=255)] = None
    output: Annotated[str | None, _key("what is found in what it prints", form="pattern")] = None


class Expect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must be so; one key."""

    event: Annotated[Logged | None, _key("an event in a log")] = None
    answer: Annotated[Answered | None, _key("a command that was answered")] = None
    send: Annotated[Send | None, _key("the answer to a command that is sent now")] = None
    health: Annotated[
        Fields | None, _key("the device's condition: items of Get Health Info by name, numbers", most=32)
    ] = None
    poison: Annotated[Poisoned | None, _key("poison on the media")] = None
    guest: Annotated[
        Guest | None, _key("what a command in the guest prints; skipped where there is no guest")
    ] = None


class Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step: when, on which device, and one thing to do or to expect."""

    name: Annotated[str | None, _key("what the report calls it")] = None
    device: Annotated[FunctionName | None, _key("which device; without this key the scenario's")] = None
    after: Annotated[
        str | None, _key("how long after the step before it, or the start", form="duration", pattern=DURATION)
    ] = None
    every: Annotated[
        str | None,
        _key(
            "again and again, in this time for the first time; the next step does not wait",
            form="duration",
            pattern=DURATION,
        ),
    ] = None
    on: Annotated[
        str | None,
        _key("when this happens, from now on; the next step does not wait", form="trigger", pattern=TRIGGER),
    ] = None
    count: Annotated[
        int | None,
        _key("how often, with `every` (without this key to the end) or `on` (once)", least=1, most=1_000_000),
    ] = None
    poison: Annotated[Lines | None, _key("poison lines of the media, with the events of it")] = None
    spoil: Annotated[
        Lines | None, _key("lines go bad, and nobody notices before a read, a scrub or a scan comes by")
    ] = None
    decay: Annotated[Decay | None, _key("let a part of the media decay from now on")] = None
    correct: Annotated[Corrected | None, _key("have errors corrected")] = None
    clear: Annotated[
        Literal["faults", "hang", "poison", "decay"] | None,
        _key(
            "take back all `faults` of commands; let the command that hangs end; take off all poison; let nothing "
            "decay any more"
        ),
    ] = None
    event: Annotated[Event | None, _key("log an event")] = None
    health: Annotated[
        Fields | None,
        _key(
            "change the device's condition: items of Get Health Info by name, numbers (`device_temperature: 95`)",
            most=32,
        ),
    ] = None
    fault: Annotated[Fault | None, _key("let something be wrong with a command")] = None
    error: Annotated[Error | None, _key("log and report a protocol error")] = None
    die: Annotated[
        Literal["silent", "firmware", "media"] | None,
        _key("the device dies: it answers nothing; no command ends any more; its media have failed"),
    ] = None
    reset: Annotated[
        Literal["cold", "hot", "function", "revive"] | None,
        _key("reset the device; `revive` brings back one that died, cold"),
    ] = None
    link: Annotated[Literal["down", "up"] | None, _key("the link to the device fails, or trains again")] = (
        None
    )
    send: Annotated[Send | None, _key("send a command, and heed no answer unless one is expected")] = None
    run: Annotated[
        str | None,
        _key("a line for the guest's shell, whose end is waited for; skipped where there is no guest"),
    ] = None
    expect: Annotated[Expect | None, _key("what must be so now, or before `within` is over")] = None
    within: Annotated[
        str | None, _key("how long an `expect` may take to come true", form="duration", pattern=DURATION)
    ] = None


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to the devices of a fabric, in order, and what is expected then."""

    steps: Annotated[list[Step], _key("the steps, from when the host is ready", least=1, most=1000)]
    before: Annotated[
        list[Step], _key("what is done before the host starts: no times, nothing to expect", most=1000)
    ] = field(default_factory=list)
    description: Annotated[str | None, _key("what it is for")] = None
    device: Annotated[
        FunctionName | None,
        _key("the device of steps that name none; without this key the topology's only one"),
    ] = None
    seed: Annotated[int, _key("of chances and random bytes", least=0, most=(1 << 63) - 1)] = 0


ACTIONS = (
    "poison",
    "spoil",
    "decay",
    "correct",
    "clear",
    "event",
    "health",
    "fault",
    "error",
    "die",
    "reset",
    "link",
    "send",
    "run",
    "expect",
)
