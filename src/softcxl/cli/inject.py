"""`softcxl inject`: a scenario over a fabric in this process, or over a server's."""

from __future__ import annotations

import json
from pathlib import Path

import click

from softcxl.cli.booted import demand
from softcxl.cli.options import HOST, JSON, TOPOLOGY
from softcxl.cli.verbs import Inject
from softcxl.device.clock import ManualClock
from softcxl.fabric.build import Fabric
from softcxl.fabric.control import socket_of
from softcxl.fabric.errors import NoSuchHost, Problem, ScenarioError
from softcxl.fabric.play import play
from softcxl.fabric.report import Outcome, Report
from softcxl.fabric.scenario import load


@click.command()
@TOPOLOGY
@click.argument("scenario", type=click.Path())
@JSON
@HOST
@click.pass_context
def inject(ctx: click.Context, topology: str, scenario: str, as_json: bool, host_name: str | None) -> None:
    """Play the file SCENARIO over the fabric of TOPOLOGY: faults at their times, and what is expected then.

    A host boots in this process, and time passes only where the scenario waits, at once. Each step is a line: its
    time, its result, and what it was. What needs a guest is skipped; `softcxl vm run --scenario` has one. With --json
    it is {passed, steps: [{step, what, result, detail, seconds, times}, …]}. The exit status is 0 where every
    expectation was met and every action could be done, else 1; a file that is wrong is 2.

    Over a server's fabric, unix:PATH, it is played in real time, past whatever drives the devices there, and what it
    has injected stays.
    """
    if socket_of(topology) is not None:
        if host_name is not None:
            raise click.UsageError("--host: at a server a scenario boots none")
        report = _at_server(topology, scenario)
    else:
        report = _here(topology, scenario, host_name)
    if as_json:
        click.echo(json.dumps(report.plain(), indent=2))
    else:
        print_report(report)
    ctx.exit(0 if report.passed else 1)


def _at_server(address: str, scenario: str) -> Report:
    try:
        text = Path(scenario).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ScenarioError([Problem(scenario, 0, 0, "", f"cannot be read: {reason}")]) from error
    told = demand(address, None, Inject(text, scenario))
    return Report(tuple(Outcome(**step) for step in told["steps"]))


def _here(topology: str, scenario: str, host_name: str | None) -> Report:
    clock = ManualClock()
    with Fabric.load(topology, clock=clock) as fabric:
        given = load(scenario, fabric.topology)
        if host_name is not None and host_name not in fabric.hosts:
            raise NoSuchHost(f"{host_name!r} is no host of {topology}; there are {', '.join(fabric.hosts)}")
        return play(fabric, given, clock, host_name)


def print_report(report: Report, *, err: bool = False) -> None:
    """A line a step, and one on how it went."""
    for one in report.outcomes:
        often = f" ({one.times} times)" if one.times > 1 else ""
        detail = f": {one.detail}" if one.detail else ""
        click.echo(f"{one.seconds:9.3f} s  {one.result:8} {one.what}{often}{detail}", err=err)
    bad = sum(one.result in ("failed", "not met") for one in report.outcomes)
    met = sum(one.result == "met" for one in report.outcomes)
    end = "passed" if report.passed else f"not passed: {bad} of {len(report.outcomes)} steps"
    click.echo(f"scenario {end}, {met} expectations met", err=err)
