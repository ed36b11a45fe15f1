"""Verbs about a switch: `identify`, `ports`, `port`, `switches`, `bind`, `unbind`, `aer`, `domain`."""

from __future__ import annotations

import sys
from typing import Any
from uuid import UUID

import click
from rich.console import Group

from softcxl import fm as library
from softcxl.cli import tables
from softcxl.cli.fm import words
from softcxl.cli.fm.group import fm
from softcxl.cli.fm.parameters import LD, PORT, VCS, VPPB, Number, Uuid
from softcxl.cli.fm.reach import Reach, Target, targeted
from softcxl.cli.options import JSON
from softcxl.cli.parameters import Hex
from softcxl.cli.tables import emit
from softcxl.cli.work import shown
from softcxl.fm import CommandRefused
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.information import ComponentType
from softcxl.spec.fm.switch import PortOperation
from softcxl.spec.fm.vcs import UnbindOption

#: Component type of one of CXL 2.0's time, which does not say.
_UNSAID = 0xFF

_OPTIONS = {
    "wait": UnbindOption.WAIT_FOR_LINK_DOWN,
    "managed": UnbindOption.MANAGED_HOT_REMOVE,
    "surprise": UnbindOption.SURPRISE_HOT_REMOVE,
}


@fm.command()
@targeted
@JSON
@click.pass_obj
def identify(reach: Reach, target: Target, as_json: bool) -> None:
    """Say what a component is: vendor, serial number, kind; of a switch its ports and virtual switches."""

    async def ask(connection: library.Connection) -> dict[str, Any]:
        component = await target.of(connection, reach.eid(connection))
        found = await component.identify()
        told: dict[str, Any] = {
            "component_type": None
            if found.component_type == _UNSAID
            else words.name_of(ComponentType, found.component_type),
            "vendor": f"{found.vendor_id:#06x}",
            "device": f"{found.device_id:#06x}",
            "subsystem_vendor": f"{found.subsystem_vendor_id:#06x}",
            "subsystem": f"{found.subsystem_id:#06x}",
            "serial": f"{found.serial_number:#x}",
            "maximum_message": 1 << found.max_message_size if found.max_message_size < 32 else None,
        }
        if target.is_endpoint:
            try:
                told["switch"] = words.switch(await library.Switch(component.channel).identify_switch())
            except CommandRefused as refused:
                if refused.code != ReturnCode.UNSUPPORTED:
                    raise
        return told

    def render(found: dict[str, Any]) -> Any:
        flat = {name: value for name, value in found.items() if name != "switch"}
        return tables.facts(flat | found.get("switch", {}))

    emit(as_json, reach.connected(ask), render)


@fm.command()
@click.argument("numbers", nargs=-1, type=PORT, metavar="[PORT]...")
@JSON
@click.pass_obj
def ports(reach: Reach, numbers: tuple[int, ...], as_json: bool) -> None:
    """Show physical ports: what they are, what is plugged in, and their links. All of them, or those that are named."""
    found = reach.switch(lambda switch: switch.ports(numbers or None))

    def render(given: list[dict[str, Any]]) -> Any:
        headings = "port", "state", "device", "mode", "LDs", "link", "up to", "signals"
        rows = (
            (
                one["port"],
                one["state"],
                one["device"],
                one["mode"],
                one["supported_lds"],
                tables.lanes(one["link"]),
                f"x{one['link']['maximum_width']} {one['link']['maximum_speed'] or 0:g} GT/s",
                [name for name in ("present", "perst", "power_off", "lane_reversal") if one["link"][name]],
            )
            for one in given
        )
        return tables.table(*headings, rows=rows)

    emit(as_json, [words.port(one) for one in found], render)


@fm.group()
def port() -> None:
    """Control a physical port."""


@port.command("reset")
@click.argument("number", type=PORT, metavar="PORT")
@click.pass_obj
def reset(reach: Reach, number: int) -> None:
    """Reset the PPB of a physical port, and with it what is behind."""
    reach.switch(lambda switch: switch.control_port(number, PortOperation.RESET_PPB))


@port.command()
@click.argument("number", type=PORT, metavar="PORT")
@click.option("--deassert", is_flag=True, help="Deassert it again.")
@click.pass_obj
def perst(reach: Reach, number: int, deassert: bool) -> None:
    """Assert PERST# of a physical port, until it is deasserted."""
    operation = PortOperation.DEASSERT_PERST if deassert else PortOperation.ASSERT_PERST
    reach.switch(lambda switch: switch.control_port(number, operation))


@fm.command()
@click.argument("numbers", nargs=-1, type=VCS, metavar="[VCS]...")
@JSON
@click.pass_obj
def switches(reach: Reach, numbers: tuple[int, ...], as_json: bool) -> None:
    """Show virtual CXL switches, and what each of their vPPBs is bound to. All of them, or those that are named."""
    found = reach.switch(lambda switch: switch.virtual_switches(numbers or None))

    def render(given: list[dict[str, Any]]) -> Any:
        parts: list[Any] = []
        for one in given:
            title = f"VCS {one['vcs']}: {tables.words(str(one['state']))}"
            if not one["vppbs"]:
                parts.append(tables.titled(title))
                continue
            rows = ((vppb["vppb"], vppb["status"], vppb["port"], vppb["ld"]) for vppb in one["vppbs"])
            found = tables.table("vPPB", "binding", "port", "LD", rows=rows)
            parts.append(tables.titled(f"{title}, upstream port {one['usp']}", found))
        return Group(*parts)

    emit(as_json, [words.virtual_switch(one) for one in found], render)


@fm.command()
@click.argument("vcs", type=VCS)
@click.argument("vppb", type=VPPB)
@click.argument("port", type=PORT)
@click.option("--ld", type=LD, metavar="N", help="To this logical device of the MLD behind the port.")
@click.option(
    "--no-wait", is_flag=True, help="Do not wait until it is bound: `background` says how far it is."
)
@JSON
@click.pass_obj
def bind(reach: Reach, vcs: int, vppb: int, port: int, ld: int | None, no_wait: bool, as_json: bool) -> None:
    """Bind a vPPB of a virtual switch to a physical port, or to a logical device behind it.

    Its host sees the device arrive by hot plug.
    """
    what = f"vPPB {vppb} of VCS {vcs}"
    to = f"port {port}" if ld is None else f"LD {ld} of port {port}"
    with shown(quiet=not sys.stderr.isatty()) as listen:
        done = reach.switch(
            lambda switch: switch.bind(
                vcs,
                vppb,
                port,
                ld,
                wait=not no_wait,
                progress=lambda percent: listen(f"binding {what}", percent / 100),
            )
        )
    data = {"vcs": vcs, "vppb": vppb, "port": port, "ld": ld, "done": done}
    emit(as_json, data, lambda _: f"{what} is {'bound' if done else 'being bound'} to {to}")


@fm.command()
@click.argument("vcs", type=VCS)
@click.argument("vppb", type=VPPB)
@click.option(
    "--option",
    type=click.Choice(list(_OPTIONS)),
    default="managed",
    help="How: when the link is down (wait), when the host has given it up (managed, and without this option), or at "
    "once (surprise).",
)
@click.option(
    "--no-wait", is_flag=True, help="Do not wait until it is unbound: `background` says how far it is."
)
@JSON
@click.pass_obj
def unbind(reach: Reach, vcs: int, vppb: int, option: str, no_wait: bool, as_json: bool) -> None:
    """Unbind a vPPB of a virtual switch: its host sees the device go."""
    what = f"vPPB {vppb} of VCS {vcs}"
    with shown(quiet=not sys.stderr.isatty()) as listen:
        done = reach.switch(
            lambda switch: switch.unbind(
                vcs,
                vppb,
                _OPTIONS[option],
                wait=not no_wait,
                progress=lambda percent: listen(f"unbinding {what}", percent / 100),
            )
        )
    data = {"vcs": vcs, "vppb": vppb, "option": option, "done": done}
    emit(as_json, data, lambda _: f"{what} is {'unbound' if done else 'being unbound'}")


@fm.command()
@click.argument("vcs", type=VCS)
@click.argument("vppb", type=VPPB)
@click.argument("bit", type=Number("bit", 0, 31))
@click.option(
    "--uncorrectable", is_flag=True, help="BIT is of the uncorrectable error status, else of the other one."
)
@click.option("--header", type=Hex(32), default=b"", metavar="HEX", help="The TLP header for the header log.")
@click.pass_obj
def aer(reach: Reach, vcs: int, vppb: int, bit: int, uncorrectable: bool, header: bytes) -> None:
    """Have a vPPB report the AER error at BIT of its error status register to its host; vPPB 0 is the upstream port."""
    reach.switch(
        lambda switch: switch.generate_aer_event(vcs, vppb, bit, uncorrectable=uncorrectable, header=header)
    )


@fm.group()
def domain() -> None:
    """Domain validation: whose a virtual switch is."""


@domain.command("show")
@click.argument("vcs", type=VCS, required=False)
@JSON
@click.pass_obj
def domain_show(reach: Reach, vcs: int | None, as_json: bool) -> None:
    """Say whether the secret value of this host's domain is set, or, of a virtual switch, which it is."""

    async def ask(switch: library.Switch) -> dict[str, Any]:
        is_set = await switch.has_domain_validation(vcs)
        found: dict[str, Any] = {"vcs": vcs, "set": is_set}
        if vcs is not None and is_set:
            found["secret_value"] = str(await switch.domain_validation(vcs))
        return found

    emit(as_json, reach.switch(ask), tables.facts)


@domain.command("set")
@click.argument("secret", type=Uuid(), metavar="UUID")
@click.pass_obj
def domain_set(reach: Reach, secret: UUID) -> None:
    """Set the secret value of this host's domain, which works once."""
    reach.switch(lambda switch: switch.set_domain_validation(secret))
