"""MCTP by the kernel's own stack, AF_MCTP: packets, routes and buses are its affair (Linux include/uapi/linux/mctp.h).

Python's sockets cannot bind or address this family, so the C library is called.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import select
import socket
from collections.abc import Iterable, Mapping
from functools import partial
from struct import Struct
from typing import Final

from softcxl.spec.mctp.packet import BROADCAST_EID, NULL_EID, MessageType, PacketFlags
from softcxl.transport.errors import DoorError, DoorInUse
from softcxl.transport.mctp.cci import Dialect
from softcxl.transport.mctp.conversation import Conversation, LoopLine
from softcxl.transport.mctp.door import LoopDoor
from softcxl.transport.mctp.errors import KernelUnsupported
from softcxl.transport.mctp.loop import Loop
from softcxl.transport.mctp.node import Node
from softcxl.transport.mctp.packet import Message
from softcxl.transport.mctp.port import Endpoint
from softcxl.transport.mctp.stream import MAX_MESSAGE

log = logging.getLogger(__name__)

AF_MCTP: Final = 45
"""As in Linux include/linux/socket.h."""

NETWORK_ANY: Final = 0
_KIND = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
_ADDRESS = Struct("=HHIBBBx")  # sockaddr_mctp: family, pad, network, endpoint ID, type, tag, pad
_TAG = PacketFlags.tag.mask
_OWNER = PacketFlags.tag_owner.mask
_MAX_PEERS = 1024

_libc = ctypes.CDLL(None, use_errno=True)


class MctpKernelDoor(LoopDoor):
    """Serves endpoints through the kernel's MCTP stack, from `open` (or `with`) until `close`.

    A single endpoint answers to whatever endpoint ID the kernel's interfaces have; of several, each answers to its
    own, which the kernel must have as a local address. `network` is the kernel's (0: any). Control messages are the
    kernel's and mctpd's affair, unless `control` is set. What the kernel cannot send is lost, and counted in `lost`.

    `open` raises `KernelUnsupported` where this kernel has no MCTP, `DoorInUse` where somebody else takes these
    messages, `DoorError` for all else, as where CAP_NET_BIND_SERVICE and CAP_NET_RAW are missing.
    """

    def __init__(
        self,
        endpoints: Mapping[int, Endpoint] | Node,
        *,
        network: int = NETWORK_ANY,
        control: bool = False,
        dialect: Dialect = Dialect.STANDARD,
    ) -> None:
        self.node = endpoints if isinstance(endpoints, Node) else Node(endpoints)
        self.network, self.dialect, self.control = network, dialect, control
        self.lost = 0
        self._sockets: list[int] = []
        self._peers: dict[tuple[int, int, int], Conversation] = {}
        self._buffer = ctypes.create_string_buffer(MAX_MESSAGE)

    @property
    def title(self) -> str:
        return "MCTP of the kernel"

    def open(self) -> None:
        """Start to listen."""
        if self._loop is not None:
            raise DoorError(f"{self.title}: this door is open already")
        endpoints = self.node.endpoints
        single = len(endpoints) == 1
        try:
            for eid, endpoint in endpoints.items():
                self._bind(BROADCAST_EID if single else eid, endpoint.types)
        except DoorError:
            self._release()
            raise
        loop = Loop("MCTP of the kernel")
        addressed = [
            NULL_EID if single else eid
            for eid, endpoint in endpoints.items()
            for _ in self._types(endpoint.types)
        ]
        for fd, eid in zip(self._sockets, addressed, strict=True):
            loop.watch(fd, select.EPOLLIN, partial(self._ready, fd, eid))
        self._loop = loop
        loop.start()

    def _types(self, types: Iterable[MessageType]) -> list[MessageType]:
        return [*types, *([MessageType.CONTROL] if self.control else [])]

    def _bind(self, eid: int, types: Iterable[MessageType]) -> None:
        for type in self._types(types):
            fd = _libc.socket(AF_MCTP, _KIND, 0)
            if fd < 0:
                error = ctypes.get_errno()
                kind = KernelUnsupported if error == errno.EAFNOSUPPORT else DoorError
                raise kind(f"this kernel has no MCTP sockets: {os.strerror(error)}")
            self._sockets.append(fd)
            address = _ADDRESS.pack(AF_MCTP, 0, self.network, eid, type, 0)
            if _libc.bind(fd, address, len(address)) < 0:
                error = ctypes.get_errno()
                kind = DoorInUse if error == errno.EADDRINUSE else DoorError
                raise kind(
                    f"{self.title}: messages of type {type:#04x} to endpoint {eid} of network {self.network}: "
                    f"{os.strerror(error)}"
                )

    def _shut(self) -> None:
        assert self._loop is not None, "the door is open"
        for fd in self._sockets:
            self._loop.forget(fd)
        self._release()
        for conversation in self._peers.values():
            conversation.close()
        self._peers.clear()

    def _release(self) -> None:
        for fd in self._sockets:
            os.close(fd)
        self._sockets.clear()

    def _ready(self, fd: int, eid: int, events: int) -> None:
        address = ctypes.create_string_buffer(_ADDRESS.size)
        size = ctypes.c_uint32(_ADDRESS.size)
        buffer = self._buffer
        length = _libc.recvfrom(fd, buffer, len(buffer), socket.MSG_TRUNC, address, ctypes.byref(size))
        if length < 0 or size.value < _ADDRESS.size:
            return  # it was for somebody else, or is gone
        _, _, network, peer, type, tag = _ADDRESS.unpack(address.raw)
        body = bytes((type,)) + ctypes.string_at(buffer, min(length, len(buffer)))
        conversation = self._conversation(fd, network, peer)
        conversation.take(Message(eid, peer, tag & _TAG, tag & _OWNER != 0, body, length > len(buffer)))

    def _conversation(self, fd: int, network: int, peer: int) -> Conversation:
        key = fd, network, peer
        found = self._peers.get(key)
        if found is None:
            if len(self._peers) >= _MAX_PEERS:
                self._peers.pop(next(iter(self._peers))).close()
            assert self._loop is not None, "the door is open"
            line = LoopLine(self._loop, partial(self._transmit, fd, network))
            found = self._peers[key] = Conversation(self.node, self.dialect, line)
        return found

    def _transmit(self, fd: int, network: int, message: Message) -> None:
        if not self._sockets:
            return
        flags = _OWNER if message.owner else message.tag  # the tags of what we ask are the kernel's to choose
        address = _ADDRESS.pack(AF_MCTP, 0, network, message.destination, message.body[0], flags)
        if _libc.sendto(fd, message.body[1:], len(message.body) - 1, 0, address, len(address)) < 0:
            self.lost += 1
            log.debug("a message of %d bytes is lost: %s", len(message.body), os.strerror(ctypes.get_errno()))
