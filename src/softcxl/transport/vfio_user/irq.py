"""Interrupts: which eventfd stands for which vector, and what is masked."""

from __future__ import annotations

import errno
import fcntl
import os
import select
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from softcxl.spec import vfio_user as spec
from softcxl.spec.vfio_user import IrqIndex
from softcxl.transport.vfio_user.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from softcxl.transport.vfio_user.traffic import Traffic

_TRIGGER, _MASK, _UNMASK = range(3)


class Event:
    """An eventfd of the client. Owns its descriptor."""

    __slots__ = ("_fd", "_may_block")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._may_block = not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK

    def signal(self) -> None:
        """Add 1, unless the counter is full: then the client has not read a signal for long, and loses
        none."""
        if self._may_block:
            ready = select.poll()
            ready.register(self._fd, select.POLLOUT)
            if not ready.poll(0):
                return
        try:
            os.eventfd_write(self._fd, 1)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


class Vector:
    """One interrupt vector. `pending` remembers one that fired while masked."""

    __slots__ = ("events", "masked", "pending")

    def __init__(self) -> None:
        self.events: list[Event | None] = [None, None, None]
        self.masked = False
        self.pending = False

    def signal(self, which: int) -> bool:
        """Signal the event of an action, if there is one."""
        event = self.events[which]
        if event is None:
            return False
        event.signal()
        return True


class IrqTable:
    """All vectors of a function. `counts` are the vectors of each type. For any thread."""

    def __init__(self, counts: Sequence[int], traffic: Traffic) -> None:
        self._counts = counts
        self._traffic = traffic
        self._lock = Lock()
        self._vectors: dict[tuple[int, int], Vector] = {}

    def fire(self, kind: int, vector: int) -> None:
        """The function fires a vector: signal its eventfd, or remember it where it is masked."""
        with self._lock:
            found = self._vectors.get((kind, vector))
            if found is None or found.events[_TRIGGER] is None:
                self._traffic.interrupts_dropped += 1
                return
            if found.masked:
                found.pending = True
                return
            # INTx masks itself until the client says unmask. A client with an unmask eventfd (QEMU on KVM)
            # has the kernel do that by itself and never says so.
            if kind == IrqIndex.INTX and found.events[_UNMASK] is None:
                found.masked = True
            self._traffic.interrupts += 1
            found.signal(_TRIGGER)

    def set(self, request: spec.IrqSet, fds: list[int]) -> None:
        """Act on a range of vectors; takes the descriptors out of `fds`. Raises `Refused`."""
        flags = request.flags
        self._check(request, fds)
        if not request.count:
            self.clear([index for index in self._vectors if index[0] == request.index])
            return
        which = _TRIGGER if flags.trigger else _MASK if flags.mask else _UNMASK
        vectors = range(request.start, request.start + request.count)
        if flags.data_eventfd:
            events = [Event(fd) for fd in fds] if fds else [None] * request.count
            fds.clear()
            with self._lock:
                for number, event in zip(vectors, events, strict=True):
                    self._assign((request.index, number), which, event)
            return
        for position, number in enumerate(vectors):
            if flags.data_none or request.data[position]:
                self._act((request.index, number), which)

    def _check(self, request: spec.IrqSet, fds: list[int]) -> None:
        flags = request.flags
        if request.argsz < spec.IrqSet.__layout__.size or request.argsz > spec.IrqSet.__layout__.size + len(
            request.data
        ):
            raise Refused(errno.EINVAL, f"argsz {request.argsz} is not what the message holds")
        if (
            flags.data_none + flags.data_bool + flags.data_eventfd != 1
            or flags.mask + flags.unmask + flags.trigger != 1
            or int(flags) >> 6
        ):
            raise Refused(errno.EINVAL, f"flags {int(flags):#x} are not one kind of data and one action")
        if request.index >= len(self._counts):
            raise Refused(errno.EINVAL, f"no interrupt type {request.index}")
        if fds and not flags.data_eventfd:
            raise Refused(errno.EINVAL, "descriptors that the flags do not announce")
        if not request.count:
            if request.start or not (flags.data_none and flags.trigger):
                raise Refused(errno.EINVAL, "no vectors, and not the way to disable all")
            return
        count = self._counts[request.index]
        if request.start + request.count > count:
            raise Refused(
                errno.EINVAL,
                f"vectors {request.start}+{request.count} of type {request.index}, which has {count}",
            )
        if request.index >= IrqIndex.ERR and not flags.trigger:
            raise Refused(errno.EINVAL, f"type {request.index} cannot be masked")
        if flags.data_bool and len(request.data) < request.count:
            raise Refused(errno.EINVAL, f"{len(request.data)} booleans for {request.count} vectors")
        if fds and len(fds) != request.count:
            raise Refused(errno.EINVAL, f"{len(fds)} descriptors for {request.count} vectors")
        if not all(map(_is_eventfd, fds)):
            raise Refused(errno.EINVAL, "a descriptor that is no eventfd")

    def _assign(self, key: tuple[int, int], which: int, event: Event | None) -> None:
        vector = self._vectors.get(key)
        if vector is None:
            if event is None:
                return
            vector = self._vectors[key] = Vector()
        old = vector.events[which]
        vector.events[which] = event
        if old is not None:
            old.close()
        if event is None and not any(vector.events) and not vector.masked:
            del self._vectors[key]

    def _act(self, key: tuple[int, int], which: int) -> None:
        if which == _TRIGGER:
            self.fire(*key)
            return
        with self._lock:
            vector = self._vectors.setdefault(key, Vector())
            if vector.masked == (which == _MASK):
                return
            vector.masked = which == _MASK
            vector.signal(which)
            pending, vector.pending = vector.pending and not vector.masked, vector.pending and vector.masked
        if pending:
            self.fire(*key)

    def clear(self, keys: Iterable[tuple[int, int]] | None = None) -> None:
        """Forget these vectors, or all, and close their descriptors."""
        with self._lock:
            for key in list(self._vectors) if keys is None else keys:
                for event in self._vectors.pop(key).events:
                    if event is not None:
                        event.close()


def _is_eventfd(fd: int) -> bool:
    return str(Path(f"/proc/self/fd/{fd}").readlink()) == "anon_inode:[eventfd]"
