"""Memory devices, and what is written to their decoders (Linux drivers/cxl/core/memdev.c, mem.c, hdm.c)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from softcxl.host.errors import MailboxError, RegionError
from softcxl.host.events import supported
from softcxl.host.sysfs.errnos import answered
from softcxl.host.sysfs.node import (
    BOTH,
    WRITE,
    Attribute,
    Directory,
    Entry,
    Link,
    SysfsError,
    boolean,
    group,
    number,
    value,
)
from softcxl.spec.command.base import Command, ReturnCode
from softcxl.spec.command.media import SANITIZE, SECURE_ERASE
from softcxl.spec.command.poison import GET_POISON_LIST
from softcxl.spec.command.security import GET_SECURITY_STATE, GetSecurityStateResponse, SecurityState

if TYPE_CHECKING:
    from softcxl.host.decoder import EndpointDecoder
    from softcxl.host.memdev import Memdev
    from softcxl.host.system import System

UNIT = 256 << 20
"""What a decoder's device addresses are given out in."""


def nvdimm(memdev: Memdev) -> bool:
    """The kernel makes it an nvdimm, too."""
    return bool(memdev.size("pmem")) and memdev.endpoint is not None


def memdev(system: System, one: Memdev) -> Directory:
    """``memN``."""

    def entries() -> Mapping[str, Entry]:
        lines = ["DEVTYPE=cxl_memdev", *(["DRIVER=cxl_mem"] if one.endpoint else []), "MODALIAS=cxl:t5"]
        commands = supported(one)
        security: dict[str, Entry] = {"state": Attribute(lambda: _security_state(one))}
        for name, command in (("sanitize", SANITIZE), ("erase", SECURE_ERASE)):
            if command.opcode in commands:
                security[name] = Attribute(None, _sanitizer(one, command), WRITE)
        found: dict[str, Entry] = {
            "firmware_version": value(one.firmware_version),
            "label_storage_size": value(one.label_storage_size),
            "numa_node": value(-1),
            "payload_max": value(one.mailbox.payload_max),
            "pmem": group(_capacity(system, one, "pmem")),
            "ram": group(_capacity(system, one, "ram")),
            "security": group(security),
            "serial": value(f"{one.serial:#x}"),
            "subsystem": Link("bus/cxl"),
            "uevent": Attribute(lambda: "\n".join(lines), mode=BOTH),
        }
        if GET_POISON_LIST.opcode in commands and one.endpoint is not None:
            found["trigger_poison_list"] = Attribute(None, _poison_lister(system, one), WRITE)
        if nvdimm(one) and any(root.persistent for root in system.root.decoders):
            found[f"pmem{one.number}"] = _nvdimm()
        return found

    return Directory(entries, device=True)


def _nvdimm() -> Directory:
    lines = ["DEVTYPE=cxl_nvdimm", "DRIVER=cxl_nvdimm", "MODALIAS=cxl:t2"]
    return Directory(
        lambda: {
            "devtype": value("cxl_nvdimm"),
            "modalias": value("cxl:t2"),
            "subsystem": Link("bus/cxl"),
            "uevent": Attribute(lambda: "\n".join(lines), mode=BOTH),
        },
        device=True,
    )


def _capacity(system: System, one: Memdev, mode: str) -> dict[str, Entry]:
    found: dict[str, Entry] = {"size": value(f"{one.size(mode):#x}")}
    qos = system.qos_class(one, mode)
    if qos is not None:
        found["qos_class"] = value(qos)
    return found


# -- security and poison ----------------------------------------------------------------------------------------


def _security(one: Memdev) -> SecurityState:
    with answered():
        return one.mailbox.ask(GET_SECURITY_STATE, GetSecurityStateResponse).state


def _security_state(one: Memdev) -> str:
    if GET_SECURITY_STATE.opcode not in supported(one):
        return "disabled"
    state = _security(one)
    if not state.user_passphrase_set:
        return "disabled"
    if state.frozen or state.master_attempts_reached or state.user_attempts_reached:
        return "frozen"
    return "locked" if state.locked else "unlocked"


def _sanitizer(one: Memdev, command: Command) -> Callable[[str], None]:
    def store(text: str) -> None:
        if not boolean(text):
            raise SysfsError(errno.EINVAL, "only true can be written")
        if one.endpoint is None or one.endpoint.committed:
            raise SysfsError(errno.EBUSY, f"{one.name} has committed decoders: its memory may be in use")
        state = _security(one)
        if state.user_passphrase_set and (command is SANITIZE or state.locked):
            raise SysfsError(errno.EINVAL, f"{one.name}: its security state forbids it")
        with answered():
            try:
                one.mailbox.send(command)
            except MailboxError as error:
                if error.code != ReturnCode.BACKGROUND_STARTED:
                    raise

    return store


def _poison_lister(system: System, one: Memdev) -> Callable[[str], None]:
    def store(text: str) -> None:
        if not boolean(text):
            raise SysfsError(errno.EINVAL, "only true can be written")
        with answered():
            system.log.trace_poison(one)

    return store


# -- decoders ----------------------------------------------------------------------------------------------------


def set_mode(decoder: EndpointDecoder, text: str) -> None:
    """What is written to ``mode``: of which partition it allocates."""
    mode = text.strip()
    if mode not in ("ram", "pmem"):
        raise SysfsError(errno.EINVAL, f"{text!r} is neither ram nor pmem")
    if decoder.committed:
        raise SysfsError(errno.EBUSY, f"{decoder.name} is committed")
    if not decoder.memdev.size(mode):
        raise SysfsError(errno.EINVAL, f"{decoder.memdev.name} has no {mode} capacity")
    if decoder.dpa is not None:
        raise SysfsError(errno.EBUSY, f"{decoder.name} has {decoder.dpa_size:#x} bytes of {decoder.mode}")
    decoder.mode = mode


def set_dpa_size(decoder: EndpointDecoder, text: str) -> None:
    """What is written to ``dpa_size``: gives back what it had, and allocates that much, in bytes."""
    size, one = number(text), decoder.memdev
    if size % UNIT:
        raise SysfsError(errno.EINVAL, f"{size:#x} is not a multiple of {UNIT:#x}")
    if decoder.committed or (decoder.region is not None and (decoder.dpa is not None or size)):
        holder = decoder.region.name if decoder.region else "firmware"
        raise SysfsError(errno.EBUSY, f"{decoder.name} is {holder}'s")
    if decoder.dpa is not None:
        last = max(below.number for below in one.decoders if below.dpa is not None)
        if decoder.number != last:
            raise SysfsError(errno.EBUSY, f"{one.decoders[last].name} has been allocated after it")
        decoder.free()
    if not size:
        return
    if not decoder.mode:
        raise SysfsError(errno.EBUSY, f"{decoder.name}: its mode is not set")
    if size > one.available(decoder.mode):
        raise SysfsError(
            errno.ENOSPC,
            f"{one.name}: {size:#x} bytes of {decoder.mode}, and {one.available(decoder.mode):#x} are free",
        )
    try:
        following = one.next_decoder()
    except RegionError as error:
        raise SysfsError(errno.EBUSY, str(error)) from None
    if following is not decoder:
        raise SysfsError(errno.EBUSY, f"{following.name} is next to be allocated")
    with answered(errno.EBUSY):
        one.allocate(decoder, decoder.mode, size)
