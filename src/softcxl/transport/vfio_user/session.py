"""One client's visit: every command, what it does, and what is answered."""

from __future__ import annotations

import errno
import logging
from struct import Struct
from typing import TYPE_CHECKING

from softcxl.spec import vfio_user as spec
from softcxl.spec.vfio_user import Command
from softcxl.transport.vfio_user import describe
from softcxl.transport.vfio_user.dma import DmaTable
from softcxl.transport.vfio_user.dma_message import DmaMessages
from softcxl.transport.vfio_user.errors import Disconnected, ProtocolError, Refused
from softcxl.transport.vfio_user.exchange import Exchange
from softcxl.transport.vfio_user.framing import (
    ERROR,
    HEADER,
    HEADER_SIZE,
    NO_FDS,
    NO_REPLY,
    REPLY,
    Channel,
    close_all,
)
from softcxl.transport.vfio_user.irq import IrqTable
from softcxl.transport.vfio_user.version import Limits, negotiate
from softcxl.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softcxl.transport.port import Port, RegionShape
    from softcxl.transport.vfio_user.traffic import Traffic

log = logging.getLogger(__name__)

MAX_MESSAGE = HEADER_SIZE + spec.RegionData.__layout__.size + spec.DEFAULT_DATA_XFER_SIZE
"""The largest message that either side sends: a read's reply or a write of as much data as is ever agreed."""

# `RegionAccess` in the hot path; tests hold the two together.
ACCESS = Struct("<QII")
_MULTI_COUNT = Struct("<Q")
_MULTI_WRITE = Struct("<QII8s")
_UNSUPPORTED = (
    Command.DEVICE_GET_REGION_IO_FDS,
    Command.DIRTY_PAGES,
    Command.DEVICE_FEATURE,
    Command.MIG_DATA_READ,
    Command.MIG_DATA_WRITE,
)


class Session:
    """Serves one connection; for the port it is the `Bus` from `attach` to `detach`.

    `serve` returns when the client has gone. `interrupt`, `dma_read`, `dma_write` and `stop` are for any
    thread.
    """

    def __init__(
        self,
        channel: Channel,
        port: Port,
        traffic: Traffic,
        dma_timeout: float,
        known_faults: set[tuple[object, ...]],
    ) -> None:
        self._port = port
        self._traffic = traffic
        self._channel = channel
        self._exchange = Exchange(channel)
        self._limits = Limits()
        self._dma = DmaTable()
        self._irqs = IrqTable((), traffic)
        self._regions: Sequence[RegionShape] = ()
        self._irq_counts: Sequence[int] = ()
        self._access: list[tuple[int, bool, bool]] = []
        self._attached = False
        self._messages = DmaMessages(self._exchange, dma_timeout)
        self._known_faults = known_faults
        self._answer_fd: int | None = None
        self._handlers: dict[int, Callable[[bytes], bytes]] = {
            Command.REGION_READ: self._region_read,
            Command.REGION_WRITE: self._region_write,
            Command.DMA_UNMAP: self._dma_unmap,
            Command.DEVICE_GET_INFO: lambda payload: describe.device_info(
                payload, self._regions, self._irq_counts
            ),
            Command.DEVICE_GET_REGION_INFO: self._region_info,
            Command.DEVICE_GET_IRQ_INFO: lambda payload: describe.irq_info(payload, self._irq_counts),
            Command.DEVICE_RESET: self._reset,
        }
        self._handlers_with_fds: dict[int, Callable[[bytes, list[int]], bytes]] = {
            Command.DMA_MAP: self._dma_map,
            Command.DEVICE_SET_IRQS: self._set_irqs,
        }

    def serve(self) -> None:
        """Answer commands until the client goes or `stop` is called."""
        try:
            self._open()
            next_command, send, pack = self._exchange.next_command, self._channel.send, HEADER.pack
            handlers, traffic = self._handlers, self._traffic
            while True:
                ident, command, flags, _, payload, fds = next_command()
                traffic.messages += 1
                try:
                    handler = handlers.get(command)
                    if handler is not None and fds is NO_FDS:
                        result = handler(payload)
                    else:
                        result = self._special(command, payload, fds)
                except Refused as refused:
                    self._refuse(ident, command, flags, refused.errno, refused.why)
                    continue
                except WireError as error:
                    self._refuse(ident, command, flags, errno.EINVAL, str(error))
                    continue
                fd, self._answer_fd = self._answer_fd, None
                if not flags & NO_REPLY:
                    reply = pack(ident, command, HEADER_SIZE + len(result), REPLY, 0) + result
                    send(reply) if fd is None else send(reply, (fd,))
        except Disconnected as reason:
            log.debug("client gone: %s", reason)
        except ProtocolError as error:
            self._traffic.protocol_errors += 1
            log.warning("closing the connection: %s", error)
        finally:
            self._close()

    @property
    def process(self) -> int:
        """The machine's process; 0 where that is not to be known."""
        return self._channel.process

    def stop(self) -> None:
        """Make `serve` return soon; from any thread."""
        self._exchange.shutdown()

    def _open(self) -> None:
        ident, command, flags, _, payload, fds = self._exchange.next_command()
        self._traffic.messages += 1
        try:
            if command != Command.VERSION or fds is not NO_FDS:
                close_all(fds or ())
                raise Refused(errno.EINVAL, f"command {command} before the version is agreed")
            self._limits, answer = negotiate(payload)
            self._attach()
        except Refused as refused:
            self._refuse(ident, command, flags, refused.errno, refused.why)
            raise Disconnected(f"no version agreed: {refused.why}") from None
        self._channel.send(HEADER.pack(ident, command, HEADER_SIZE + len(answer), REPLY, 0) + answer)

    def _attach(self) -> None:
        if self._limits.write_multiple:
            self._handlers[Command.REGION_WRITE_MULTI] = self._region_write_multi
        self._dma.limit = self._limits.dma_maps
        try:
            regions: list[RegionShape] = [region or describe.NO_REGION for region in self._port.regions()]
            counts = list(self._port.irqs())
        except Exception as error:  # noqa: BLE001 - whatever a port does, the door goes on
            raise self._fault("regions", error) from None
        self._regions = regions = regions + [describe.NO_REGION] * (spec.PCI_REGIONS - len(regions))
        self._access = [
            (region.size, region.readable and region.size > 0, region.writable and region.size > 0)
            for region in regions
        ]
        self._irq_counts = counts + [0] * (spec.PCI_IRQS - len(counts))
        self._irqs = IrqTable(self._irq_counts, self._traffic)
        try:
            self._port.attach(self)
        except Exception as error:  # noqa: BLE001 - whatever a port does, the door goes on
            raise self._fault("attach", error) from None
        self._attached = True

    def _close(self) -> None:
        self._exchange.close()
        if self._attached:
            self._attached = False
            try:
                self._port.detach()
            except Exception as error:  # noqa: BLE001 - whatever a port does, the door goes on
                self._fault("detach", error)
        # Only now: until it is detached, a port may use its bus.
        self._irqs.clear()
        self._dma.clear()

    def _refuse(self, ident: int, command: int, flags: int, error: int, why: str) -> None:
        self._traffic.refused += 1
        log.info("command %d refused, %s: %s", command, errno.errorcode.get(error, error), why)
        if not flags & NO_REPLY:
            self._channel.send(HEADER.pack(ident, command, HEADER_SIZE, REPLY | ERROR, error))

    def _fault(self, where: str, error: Exception) -> Refused:
        """An exception of the port is a bug of ours: the guest gets EIO, the log gets one traceback a
        place."""
        self._traffic.faults += 1
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        signature = where, type(error), at and (at.tb_frame.f_code.co_filename, at.tb_lineno)
        if signature not in self._known_faults:
            self._known_faults.add(signature)
            log.error("the port failed in %s; from now on this is only counted", where, exc_info=error)
        return Refused(errno.EIO, f"the port failed in {where}: {error!r}")

    def _special(self, command: int, payload: bytes, received: Sequence[int] | None) -> bytes:
        """Whatever is not a plain command without descriptors."""
        if received is None:
            raise Refused(errno.EINVAL, "too many descriptors")
        fds = list(received)
        try:
            if len(fds) > self._limits.msg_fds:
                raise Refused(errno.EINVAL, f"{len(fds)} descriptors, {self._limits.msg_fds} were agreed")
            handler = self._handlers_with_fds.get(command)
            if handler is not None:
                return handler(payload, fds)
        finally:
            close_all(fds)  # those that nobody took
        if command in self._handlers:
            raise Refused(errno.EINVAL, "descriptors on a command that takes none")
        if command in _UNSUPPORTED or command == Command.REGION_WRITE_MULTI:
            raise Refused(errno.ENOTSUP, f"{Command(command).name} is not supported, or was not agreed on")
        if command in (Command.VERSION, Command.DMA_READ, Command.DMA_WRITE):
            raise Refused(errno.EINVAL, f"{Command(command).name} is out of place")
        raise Refused(errno.ENOSYS, f"no command {command}")

    def _region_read(self, payload: bytes) -> bytes:
        if len(payload) != 16:
            raise Refused(errno.EINVAL, f"a read of {len(payload)} bytes, where 16 are meant")
        offset, region, count = ACCESS.unpack(payload)
        if region >= len(self._access):
            raise Refused(errno.EINVAL, f"no region {region}")
        size, readable, _ = self._access[region]
        if not 0 < count <= size - offset or count > self._limits.data_xfer_size:
            raise Refused(
                errno.EINVAL, f"{offset:#x}+{count:#x} is not in region {region} of {size:#x} bytes"
            )
        if not readable:
            raise Refused(errno.EACCES, f"region {region} is not readable")
        try:
            data = self._port.read(region, offset, count)
            if len(data) != count:
                raise ValueError(f"{len(data)} bytes from region {region}, where {count} were asked for")
        except Exception as error:  # noqa: BLE001 - whatever a port does, the door goes on
            raise self._fault("read", error) from None
        traffic = self._traffic
        traffic.reads += 1
        traffic.read_bytes += count
        return payload + data

    def _region_write(self, payload: bytes) -> bytes:
        if len(payload) < 16:
            raise Refused(errno.EINVAL, f"a write of {len(payload)} bytes, where 16 and data are meant")
        offset, region, count = ACCESS.unpack_from(payload)
        if count != len(payload) - 16:
            raise Refused(errno.EINVAL, f"{len(payload) - 16} bytes of data, where the count is {count}")
        self._write(region, offset, payload[16:])
        return payload[:16]

    def _region_write_multi(self, payload: bytes) -> bytes:
        if len(payload) < 8:
            raise Refused(errno.EINVAL, f"{len(payload)} bytes, where a count and writes are meant")
        (count,) = _MULTI_COUNT.unpack_from(payload)
        if count * _MULTI_WRITE.size != len(payload) - 8:
            raise Refused(errno.EINVAL, f"{len(payload) - 8} bytes of writes, where the count is {count}")
        done = 0
        for offset, region, size, data in _MULTI_WRITE.iter_unpack(memoryview(payload)[8:]):
            try:
                if size > 8:
                    raise Refused(errno.EINVAL, f"{size} bytes in one of many writes, where 8 fit")
                self._write(region, offset, data[:size])
            except Refused:
                if not done:
                    raise
                break  # the reply says how many were done
            done += 1
        return _MULTI_COUNT.pack(done)

    def _write(self, region: int, offset: int, data: bytes) -> None:
        if region >= len(self._access):
            raise Refused(errno.EINVAL, f"no region {region}")
        size, _, writable = self._access[region]
        count = len(data)
        if not 0 < count <= size - offset or count > self._limits.data_xfer_size:
            raise Refused(
                errno.EINVAL, f"{offset:#x}+{count:#x} is not in region {region} of {size:#x} bytes"
            )
        if not writable:
            raise Refused(errno.EACCES, f"region {region} is not writable")
        try:
            self._port.write(region, offset, data)
        except Exception as error:  # noqa: BLE001 - whatever a port does, the door goes on
            raise self._fault("write", error) from None
        self._traffic.writes += 1
        self._traffic.written_bytes += count

    def _region_info(self, payload: bytes) -> bytes:
        answer, self._answer_fd = describe.region_info(payload, self._regions, self._limits.client_fds)
        return answer

    def _dma_map(self, payload: bytes, fds: list[int]) -> bytes:
        self._dma.map(spec.DmaMap.unpack(payload), fds)
        self._traffic.dma_maps += 1
        return b""

    def _dma_unmap(self, payload: bytes) -> bytes:
        self._dma.unmap(spec.DmaUnmap.unpack(payload))
        self._traffic.dma_unmaps += 1
        return payload

    def _set_irqs(self, payload: bytes, fds: list[int]) -> bytes:
        self._irqs.set(spec.IrqSet.unpack(payload), fds)
        return b""

    def _reset(self, payload: bytes) -> bytes:
        if payload:
            raise Refused(errno.EINVAL, f"{len(payload)} bytes of payload, where none is meant")
        try:
            self._port.reset()
        except Exception as error:  # noqa: BLE001 - whatever a port does, the door goes on
            raise self._fault("reset", error) from None
        self._traffic.resets += 1
        return b""

    def interrupt(self, kind: int, vector: int) -> None:
        """Fire a vector; see `Bus.interrupt`."""
        self._irqs.fire(kind, vector)

    def dma_read(self, address: int, size: int) -> bytes:
        """Guest memory; see `Bus.dma_read`."""
        data = self._dma.read(address, size)
        if data is not None:
            self._traffic.dma_direct += 1
            return data
        self._traffic.dma_messages += 1
        step = self._limits.data_xfer_size
        return b"".join(
            self._messages.read(at, min(step, address + size - at))
            for at in range(address, address + size, step)
        )

    def dma_write(self, address: int, data: bytes) -> None:
        """Store in guest memory; see `Bus.dma_write`."""
        if self._dma.write(address, data):
            self._traffic.dma_direct += 1
            return
        self._traffic.dma_messages += 1
        step = self._limits.data_xfer_size
        for at in range(0, len(data), step):
            self._messages.write(address + at, data[at : at + step])
