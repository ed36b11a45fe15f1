"""`softcxl lab`: the parts that a guest needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from softcxl.cli.work import shown
from softcxl.lab import core, kvm
from softcxl.lab import kernel as own
from softcxl.lab.parts import Kernel, Qemu, Tools
from softcxl.lab.setup import Finding, Status
from softcxl.lab.setup import setup as fetch
from softcxl.lab.setup import status as look


@click.group()
def lab() -> None:
    """QEMU, a kernel and its tools: what there is, and how to get it."""


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def setup(as_json: bool) -> None:
    """Fetch what is neither on this system nor in the cache.

    Packages come from this system's own archive, into a private folder: no root is needed and nothing is
    installed. Exit status 3: it cannot be had here; the message says why.
    """
    with shown() as progress:
        status = fetch(progress)
    _print(status, as_json, accelerator=None)


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option(
    "--kvm", "probe", is_flag=True, help="Also try whether a kernel runs under KVM (seconds, once)."
)
@click.pass_context
def status(ctx: click.Context, as_json: bool, probe: bool) -> None:
    """Say what was found, where, and what is missing. Exit status 3 if something is."""
    found = look()
    accelerator = None
    if probe and not found.missing:
        with shown() as progress:
            accelerator = "kvm" if kvm.works(found.parts(), progress) else "tcg"
    _print(found, as_json, accelerator)
    ctx.exit(3 if found.missing else 0)


@lab.command("core")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def core_(as_json: bool) -> None:
    """Build the C core of the pool, unless it is there, and print its path.

    A compiler and Python's headers are fetched into the cache where this machine has none: no root is needed and
    nothing is installed. Exit status 3: it cannot be built here; the message says why.
    """
    with shown() as progress:
        path = core.build(progress)
    click.echo(json.dumps({"path": str(path)}, indent=2) if as_json else path)


@lab.group()
def kernel() -> None:
    """A kernel of one's own: all of CXL built in, with what distributions leave out."""


@kernel.command()
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="A kernel source tree of yours, in place of the distribution's.",
)
@click.option(
    "--config",
    "extra",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A configuration fragment on top of the lab's.",
)
@click.option("--jobs", "-j", type=click.IntRange(min=1), metavar="N", help="Compilers at a time.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def build(source: Path | None, extra: Path | None, jobs: int | None, as_json: bool) -> None:
    """Build it, unless the cache has it, and print its path: `softcxl vm run --kernel PATH` boots it.

    Takes about 13 minutes of processor time and 3 GB of disk. Exit status 3: it cannot be built here; the message
    says why.
    """
    with shown() as progress:
        built = own.build(progress, source=source, extra=extra, jobs=jobs)
    answer = {
        "path": str(built.image),
        "release": built.release,
        "config": str(built.image.with_name("config")),
    }
    click.echo(json.dumps(answer, indent=2) if as_json else built.image)


def _print(status: Status, as_json: bool, accelerator: str | None) -> None:
    if as_json:
        answer: dict[str, Any] = {
            "parts": [_plain(finding) for finding in status.findings],
            "advice": status.advice,
        }
        if accelerator:
            answer["accelerator"] = accelerator
        click.echo(json.dumps(answer, indent=2))
        return
    parts = [_plain(finding) for finding in status.findings]
    width = max(len(part.get("version", "")) for part in parts)
    for part in parts:
        if part["found"]:
            click.echo(f"{part['part']:8} {part['version']:{width}} {part['origin']:9} {part['path']}")
        else:
            click.echo(f"{part['part']:8} missing: {part['reason']}")
    if accelerator:
        click.echo(f"{'runs on':8} {accelerator.upper()}")
    if status.advice:
        click.echo(status.advice)


def _plain(finding: Finding) -> dict[str, Any]:
    match finding.found:
        case Qemu() as qemu:
            version, path, origin = ".".join(map(str, qemu.version)), qemu.command[-1], qemu.origin
        case Kernel() as kernel:
            version, path, origin = kernel.release, str(kernel.image), kernel.origin
        case Tools() as tools:
            version, path, origin = ", ".join(sorted(tools.programs)), str(tools.root), tools.origin
        case None:
            return {"part": finding.part, "found": False, "reason": finding.reason}
    return {"part": finding.part, "found": True, "version": version, "origin": origin, "path": path}
