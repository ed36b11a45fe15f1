"""The first message each way: what both sides will keep to."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from typing import Any

from softcxl.spec import vfio_user as spec
from softcxl.transport.vfio_user.errors import Refused
from softcxl.transport.vfio_user.framing import MAX_FDS
from softcxl.wire import WireError

MAX_VERSION_DATA = 16384
"""Bytes of JSON that a client may send; QEMU sends 200."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What was agreed. Sizes are in bytes."""

    data_xfer_size: int = spec.DEFAULT_DATA_XFER_SIZE
    """Data in one read or write, either way."""
    msg_fds: int = spec.DEFAULT_MSG_FDS
    """Descriptors that the client may put in one message."""
    client_fds: int = spec.DEFAULT_MSG_FDS
    """Descriptors that we may put in one message."""
    dma_maps: int = spec.DEFAULT_DMA_MAPS
    write_multiple: bool = False


def negotiate(payload: bytes) -> tuple[Limits, bytes]:
    """The limits that a VERSION command leads to, and the reply's payload.

    The reply holds no capability that the client did not propose, in the shortest form: QEMU takes no reply
    that is longer than its command. Raises `Refused`.
    """
    try:
        version = spec.Version.unpack(payload)
    except WireError as error:
        raise Refused(errno.EINVAL, str(error)) from None
    if version.major != spec.MAJOR:
        raise Refused(errno.EINVAL, f"protocol {version.major}.{version.minor}, {spec.MAJOR}.x is spoken")
    proposed = _capabilities(version.data)
    agreed: dict[str, Any] = {}
    client_fds = spec.DEFAULT_MSG_FDS
    if "max_msg_fds" in proposed:
        client_fds = _number(proposed, "max_msg_fds", 0)
        agreed["max_msg_fds"] = MAX_FDS  # each side says what itself can receive
    if "max_data_xfer_size" in proposed:
        size = _number(proposed, "max_data_xfer_size", 1)
        agreed["max_data_xfer_size"] = min(size, spec.DEFAULT_DATA_XFER_SIZE)
    if "max_dma_maps" in proposed:
        agreed["max_dma_maps"] = min(_number(proposed, "max_dma_maps", 0), spec.DEFAULT_DMA_MAPS)
    if "pgsizes" in proposed:
        agreed["pgsizes"] = _number(proposed, "pgsizes", 1) & spec.DEFAULT_PGSIZES
        if not agreed["pgsizes"]:
            raise Refused(errno.EINVAL, f"pgsizes {proposed['pgsizes']:#x} without {spec.DEFAULT_PGSIZES:#x}")
    if "write_multiple" in proposed:
        if not isinstance(proposed["write_multiple"], bool):
            raise Refused(errno.EINVAL, f"write_multiple: {proposed['write_multiple']!r} is no boolean")
        agreed["write_multiple"] = proposed["write_multiple"]
    if not isinstance(proposed.get("twin_socket", {}), dict):
        raise Refused(errno.EINVAL, f"twin_socket: {proposed['twin_socket']!r} is no object")
    limits = Limits(
        data_xfer_size=agreed.get("max_data_xfer_size", spec.DEFAULT_DATA_XFER_SIZE),
        msg_fds=agreed.get("max_msg_fds", spec.DEFAULT_MSG_FDS),
        client_fds=client_fds,
        dma_maps=agreed.get("max_dma_maps", spec.DEFAULT_DMA_MAPS),
        write_multiple=agreed.get("write_multiple", False),
    )
    data = (
        json.dumps({"capabilities": agreed}, separators=(",", ":")).encode() + b"\0" if version.data else b""
    )
    return limits, spec.Version(major=spec.MAJOR, minor=min(spec.MINOR, version.minor), data=data).pack()


def _capabilities(data: bytes) -> dict[str, Any]:
    if not data:
        return {}
    if len(data) > MAX_VERSION_DATA:
        raise Refused(errno.EINVAL, f"{len(data)} bytes of version data, {MAX_VERSION_DATA} are allowed")
    if data[-1]:
        raise Refused(errno.EINVAL, "version data without its terminating NUL")
    try:
        document = json.loads(data[:-1].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(errno.EINVAL, f"version data is no JSON: {error}") from None
    capabilities = document.get("capabilities", {}) if isinstance(document, dict) else None
    if not isinstance(capabilities, dict):
        raise Refused(errno.EINVAL, "version data is no object with an object `capabilities`")
    return capabilities


def _number(proposed: dict[str, Any], name: str, least: int) -> int:
    value = proposed[name]
    if type(value) is not int or value < least:
        raise Refused(errno.EINVAL, f"{name}: {value!r} is no number from {least} up")
    return value
