"""A scenario played over a live fabric: its steps done in their time, its expectations looked at, a report.

`play` does it with a host in this process, in which time passes only where a step waits; `Player` is the same beside a
guest, in real time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from softcxl.device.cci import Reply
from softcxl.device.clock import ManualClock, Timer
from softcxl.device.geometry import Scope
from softcxl.device.type3 import Type3
from softcxl.fabric import scenario as file
from softcxl.fabric.build import Fabric
from softcxl.fabric.pace import Pace, Turned
from softcxl.fabric.report import Outcome, Report, said
from softcxl.fabric.scenario_keys import Expect, Fault, Guest, Scenario, Send, Step
from softcxl.host.errors import MailboxError
from softcxl.host.system import System
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import EventRecord
from softcxl.wire import Reset

Shell = Callable[[str], tuple[int, str]]
"""Runs a line in the guest's shell: its exit status and what it printed."""
Mailbox = Callable[[Type3, int, bytes], tuple[ReturnCode | None, bytes]]
"""Sends a command to a device: its return code, None where no answer came, and its output payload."""

_RESETS = {"cold": Reset.COLD, "hot": Reset.HOT, "function": Reset.FLR}


def play(fabric: Fabric, scenario: Scenario, clock: ManualClock, host: str | None = None) -> Report:
    """Play over a fabric that was made with `clock`, with an operating system on `host` (the first, if None; none,
    where the topology has none) in this process. Steps for a guest are skipped."""
    name = host or next(iter(fabric.hosts), None)
    player = Player(fabric, scenario, Turned(clock))
    with player.listening():
        player.before()
        system = None if name is None else fabric.hosts[name].boot()
        player.mailbox = _driver(system, name, fabric)
        player.steps()
    return player.report


def _driver(system: System | None, host: str | None, fabric: Fabric) -> Mailbox:
    """Commands go the way of the host's driver; where it has not bound, straight to the device."""

    def send(device: Type3, opcode: int, payload: bytes) -> tuple[ReturnCode | None, bytes]:
        here = (
            system is not None
            and host is not None
            and device.name in (*fabric.hosts[host].routes, *fabric.hosts[host].bound)
        )
        bound = (
            [one for one in system.memdevs.values() if one.serial == device.serial] if system and here else []
        )
        if not bound:
            return direct(device, opcode, payload)
        try:
            code, output = bound[0].mailbox.submit(opcode, payload)
        except MailboxError:
            return None, b""
        return (ReturnCode(code) if code in list(ReturnCode) else None), output

    return send


def direct(device: Type3, opcode: int, payload: bytes) -> tuple[ReturnCode | None, bytes]:
    """A command to the device's command interface, past its mailbox."""
    with device.lock:
        reply = device.cci.execute(opcode, payload)
    return reply.code, reply.payload


class Player:
    """Plays one scenario once: `listening` around `before`, then, with the host ready, `steps`.

    `shell` runs lines in the guest, `mailbox` sends commands; steps for a guest are skipped where `shell` is None.
    """

    def __init__(self, fabric: Fabric, scenario: Scenario, pace: Pace, *, shell: Shell | None = None) -> None:
        self.fabric, self.scenario, self.pace = fabric, scenario, pace
        self.shell = shell
        self.mailbox: Mailbox = direct
        self._start = pace.clock.now()
        self._outcomes: list[Outcome] = []
        self._events: list[tuple[str, EventLog, EventRecord]] = []
        self._answers: list[tuple[str, int, ReturnCode]] = []
        self._triggers: list[Callable[[str, str, int], None]] = []
        self._timers: list[Timer] = []
        self._over = False

    @property
    def report(self) -> Report:
        """What has become of it so far."""
        return Report(tuple(self._outcomes))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of each device's commands and events; in the end nothing of the scenario goes on, but what it has
        injected stays."""
        with_taps = [self._tap(device) for device in self.fabric.devices.values()]
        try:
            yield
        finally:
            self._over = True
            for timer in self._timers:
                timer.cancel()
            for end in with_taps:
                end()

    def _tap(self, device: Type3) -> Callable[[], None]:
        name = device.name

        def command(opcode: int, payload: bytes, reply: Reply) -> None:
            self._answers.append((name, opcode, reply.code))
            self._happened(name, "command", opcode)

        def event(log: EventLog, record: EventRecord) -> None:
            self._events.append((name, log, record))
            self._happened(name, "event", int(log))

        with device.lock:
            device.events.taken.append(event)
        unwatch = device.inject.watch(command)

        def end() -> None:
            unwatch()
            with device.lock:
                device.events.taken.remove(event)

        return end

    def _happened(self, device: str, what: str, number: int) -> None:
        for trigger in list(self._triggers):
            trigger(device, what, number)

    # -- steps -------------------------------------------------------------------------------------------------------

    def before(self) -> None:
        """Do what comes before the host starts."""
        for number, step in enumerate(self.scenario.before):
            self._act(step, self._outcome(step, f"before[{number}]"), number)

    def steps(self) -> None:
        """Do the steps from now on, when the host is ready; returns when all that end have."""
        self._start = self.pace.clock.now()
        for number, step in enumerate(self.scenario.steps):
            outcome = self._outcome(step, f"steps[{number}]")
            seed = len(self.scenario.before) + number
            if step.every is not None:
                self._repeat(step, outcome, seed)
            elif step.on is not None:
                self._arm(step, outcome, seed)
            else:
                self.pace.wait(0.0 if step.after is None else file.seconds(step.after), lambda: False)
                self._do(step, outcome, seed)
        counted = [(one, step.count) for one, step in self._repeated if step.count is not None]
        self.pace.wait(1e9, lambda: all(one.times >= count for one, count in counted))
        self.pace.wait(0.0, lambda: False)

    @property
    def _repeated(self) -> list[tuple[Outcome, Step]]:
        outcomes = self._outcomes[len(self.scenario.before) :]
        return [
            (one, step)
            for one, step in zip(outcomes, self.scenario.steps, strict=False)
            if step.every is not None
        ]

    def _outcome(self, step: Step, where: str) -> Outcome:
        outcome = Outcome(where, step.name or said(step))
        self._outcomes.append(outcome)
        return outcome

    def _repeat(self, step: Step, outcome: Outcome, seed: int) -> None:
        assert step.every is not None
        period = file.seconds(step.every)

        def fire() -> None:
            if not self._over:
                self._act(step, outcome, seed + outcome.times)
                if step.count is None or outcome.times < step.count:
                    self._timers.append(self.pace.clock.call_later(period, fire))

        self._timers.append(self.pace.clock.call_later(period, fire))

    def _arm(self, step: Step, outcome: Outcome, seed: int) -> None:
        assert step.on is not None
        what, _, which = step.on.partition(" ")
        which = which.strip()
        if what == "command":
            wanted = file.opcode(which)
        else:
            wanted = None if which == "any" else int(EventLog[which.upper()])
        left = step.count or 1

        def act() -> None:
            if not self._over:
                self._act(step, outcome, seed + outcome.times)

        def happened(device: str, kind: str, number: int) -> None:
            nonlocal left
            if device == step.device and kind == what and wanted in (None, number) and left > 0:
                left -= 1
                # the device is in the midst of it, and may not be reset, or die, before it is done
                self._timers.append(self.pace.clock.call_later(0.0, act))

        self._triggers.append(happened)

    def _do(self, step: Step, outcome: Outcome, seed: int) -> None:
        guest = step.run or (step.expect.guest if step.expect is not None else None)
        if guest is not None and self.shell is None:
            outcome.result, outcome.detail = "skipped", "it needs a guest"
        elif step.expect is not None:
            self._await(step, step.expect, outcome)
        else:
            self._act(step, outcome, seed)

    def _act(self, step: Step, outcome: Outcome, seed: int) -> None:
        outcome.seconds = round(self.pace.clock.now() - self._start, 3)
        outcome.times += 1
        try:
            detail, result = self._action(step, seed), "done"
        except (_Failed, ValueError) as refused:
            detail, result = str(refused), "failed"
        if outcome.result != "failed":  # once is enough
            outcome.detail, outcome.result = detail, result

    def _action(self, step: Step, seed: int) -> str:
        if step.run is not None:
            assert self.shell is not None
            status, output = self.shell(step.run)
            if status:
                raise _Failed(f"exit status {status}{_tail(output)}")
            return ""
        device = self._device(step)
        inject = device.inject
        if step.poison is not None:
            return f"{inject.poison(step.poison.address, step.poison.length)} lines"
        if step.spoil is not None:
            return f"{inject.spoil(step.spoil.address, step.spoil.length)} lines"
        if step.decay is not None:
            one = step.decay
            every, scope = file.seconds(one.every or "1s"), Scope[one.scope.upper()]
            inject.decay(one.address, scope=scope, nibbles=one.nibbles, every=every, endurance=one.endurance)
            return ""
        if step.clear == "decay":
            device.faults.mend()
            return ""
        if step.clear == "poison":
            return f"{inject.clear_poison(0, device.capacity.end)} lines"
        if step.clear == "faults":
            inject.clear()
        elif step.clear == "hang":
            return "" if inject.release() else "no command hung"
        elif step.event is not None:
            log = EventLog[step.event.log.upper()]
            if not inject.event(log, step.event.type, **file.values(step.event.fields)):
                return "the log was full"
        elif step.correct is not None:
            inject.correct(step.correct.address, step.correct.count)
        elif step.health is not None:
            inject.health(**file.values(step.health))
        elif step.fault is not None:
            self._fault(device, step.fault, seed)
        elif step.error is not None:
            kind = inject.error(
                step.error.name,
                correctable=step.error.severity == "correctable",
                protocol=step.error.protocol,
            )
            return kind.value if kind is not None else "logged, not reported"
        elif step.die is not None:
            inject.die(step.die)
        elif step.reset == "revive":
            inject.revive()
        elif step.reset is not None:
            device.reset(_RESETS[step.reset])
        elif step.link is not None:
            (inject.link_down if step.link == "down" else inject.link_up)()
        elif step.send is not None:
            met, detail = self._sent(
                device, step.send, checked=step.send.code is not None or bool(step.send.output)
            )
            if not met:
                raise _Failed(detail)
            return detail
        return ""

    def _device(self, step: Step) -> Type3:
        assert step.device is not None, "a scenario that holds has one"
        return self.fabric.devices[step.device]

    def _fault(self, device: Type3, fault: Fault, seed: int) -> None:
        inject, opcode = device.inject, file.opcode(fault.command)
        when: dict[str, Any] = {
            "times": fault.times,
            "probability": file.chance(fault.probability),
            "seed": self.scenario.seed + seed,
        }
        if fault.effect == "fail":
            inject.fail(opcode, file.CODES[fault.code or ""], **when)
        elif fault.effect == "hang":
            inject.hang(opcode, **when)
        elif fault.effect == "delay":
            inject.delay(opcode, file.seconds(fault.duration or ""), **when)
        elif fault.effect == "garble":
            inject.garble(opcode, **when)
        elif fault.effect == "shorten":
            inject.shorten(opcode, fault.size or 0, **when)
        else:
            inject.lengthen(opcode, fault.size or 0, **when)

    # -- expectations ------------------------------------------------------------------------------------------------

    def _await(self, step: Step, expect: Expect, outcome: Outcome) -> None:
        found: list[tuple[bool, str]] = []

        def look() -> bool:
            try:
                found[:] = [self._look(step, expect)]
            except ValueError as refused:
                found[:] = [(False, str(refused))]
            return found[0][0]

        self.pace.wait(0.0, lambda: False)
        self.pace.wait(0.0 if step.within is None else file.seconds(step.within), look)
        met, detail = found[0]
        outcome.result, outcome.detail = "met" if met else "not met", detail
        outcome.seconds = round(self.pace.clock.now() - self._start, 3)
        outcome.times = 1

    def _look(self, step: Step, expect: Expect) -> tuple[bool, str]:
        if expect.guest is not None:
            return self._guest(expect.guest)
        device = self._device(step)
        if expect.event is not None:
            wanted = expect.event
            log = None if wanted.log is None else EventLog[wanted.log.upper()]
            count = sum(
                name == device.name
                and log in (None, one)
                and file.is_kind(wanted.type, record.header.identifier)
                for name, one, record in list(self._events)
            )
            return _counted(count, wanted.count, "such events")
        if expect.answer is not None:
            opcode = file.opcode(expect.answer.command)
            code = None if expect.answer.code is None else file.CODES[expect.answer.code]
            count = sum(
                name == device.name and opcode in (None, number) and code in (None, answered)
                for name, number, answered in list(self._answers)
            )
            return _counted(count, expect.answer.count, "such answers")
        if expect.send is not None:
            return self._sent(device, expect.send, checked=True)
        if expect.health is not None:
            with device.lock:
                condition = device.health.condition()
            is_ = {name: int(getattr(condition, name)) for name in expect.health}
            wrong = {
                name: is_[name] for name, text in expect.health.items() if is_[name] != file.value(name, text)
            }
            return not wrong, ", ".join(f"{name} is {number}" for name, number in (wrong or is_).items())
        assert expect.poison is not None
        lines = _lines(device, expect.poison.address, expect.poison.length)
        return lines == expect.poison.lines, f"{lines} lines"

    def _sent(self, device: Type3, send: Send, *, checked: bool) -> tuple[bool, str]:
        opcode = file.opcode(send.opcode)
        assert opcode is not None
        code, output = self.mailbox(device, opcode, bytes.fromhex(send.payload or ""))
        name = file.NO_ANSWER if code is None else code.name.lower().replace("_", "-")
        if not checked:
            return True, name
        good = {"success", "background-started"} if send.code is None else {send.code}
        if name not in good:
            return False, f"return code {name}"
        wanted = bytes.fromhex(send.output or "")
        if output[: len(wanted)] != wanted:
            return False, f"output begins with {output[: len(wanted)].hex()}"
        return True, name

    def _guest(self, wanted: Guest) -> tuple[bool, str]:
        assert self.shell is not None
        status, output = self.shell(wanted.run)
        if status != (wanted.status or 0):
            return False, f"exit status {status}{_tail(output)}"
        if wanted.output is not None and not re.search(wanted.output, output, re.MULTILINE):
            return False, f"not found{_tail(output)}"
        return True, ""


class _Failed(Exception):
    """An action could not be done, or did not end as it should."""


def _counted(count: int, least: int, what: str) -> tuple[bool, str]:
    return (count >= least if least else count == 0), f"{count} {what}"


def _lines(device: Type3, address: int, length: int | None) -> int:
    end = device.capacity.end if length is None else address + length
    with device.lock:
        return sum(size // 64 for _, size, _ in device.poison.map.runs(address, end - address))


def _tail(output: str) -> str:
    lines = output.strip().splitlines()
    return f"; it printed: {lines[-1][:200]}" if lines else ""
