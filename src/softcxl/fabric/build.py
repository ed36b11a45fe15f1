"""From a topology to live objects: devices, hosts with their windows, and doors that guests come in by."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from softcxl.device.access import PoolAccess, PoolMemory
from softcxl.device.access.former import FormerSlot
from softcxl.device.clock import Clock, SystemClock
from softcxl.device.decoder import CommitError
from softcxl.device.mld.device import LdChange, MultiLogicalDevice
from softcxl.device.mld.head import Head
from softcxl.device.mld.logical import LogicalDevice
from softcxl.device.persist import StateDamaged, StatePage
from softcxl.device.type3 import Type3
from softcxl.fabric import dynamic, keys, pool, pool_rules, shared, topology, vendor
from softcxl.fabric.errors import BuildError
from softcxl.fabric.host import HostMemory, HostWindow
from softcxl.fabric.keeper import keep
from softcxl.fabric.layout import window_bases
from softcxl.fabric.live_host import FirmwareProgram, LiveHost, leave_windows
from softcxl.fabric.pool_files import PoolFiles
from softcxl.fabric.routes import access_routes, cci_routes, routes, virtual_routes, virtual_switch_of
from softcxl.fabric.store import Store
from softcxl.memory.errors import MemoryFault
from softcxl.memory.media import Medium
from softcxl.memory.window import Window
from softcxl.pci.function import Function
from softcxl.switch.mailbox_cci import SwitchMailboxCci
from softcxl.switch.physical import PhysicalSwitch
from softcxl.switch.tenant import Nobody
from softcxl.switch.virtual import VirtualSwitch
from softcxl.transport.vfio_user import Door, DoorError
from softcxl.wire import Reset

log = logging.getLogger(__name__)


class Fabric:
    """A whole fabric, live in this process, until `close`.

    `devices` are its memory devices by name, logical devices among them (`pool.0`), `mlds` the devices that these are
    of, `switches` those that hosts share, `virtual` their virtual switches and `ccis` their mailbox CCIs, `access` the
    slots by which guests reach the pool, `pool_memory` those memory devices whose memory is the pool's, `hosts` its
    hosts, `open_doors` the doors open now, by device or function,
    `store` what survives of it, with the journal of what happened. Raises `BuildError` where a part cannot be made: a
    file that is in use or of the wrong size, a disk that is full, a device class that does not import.

    >>> with Fabric.loads('''
    ... devices: {mem0: {volatile: 256MiB}}
    ... hosts: {alpha: {bridges: {hb0: {ports: [mem0]}}, windows: [{size: 256MiB, targets: [hb0]}]}}
    ... ''') as fabric:
    ...     hex(fabric.hosts["alpha"].memory.windows[0].base)
    '0x100000000'
    """

    def __init__(
        self,
        given: keys.Topology,
        *,
        folder: str | Path = ".",
        clock: Clock | None = None,
        serves: Path | None = None,
    ) -> None:
        self.topology = given
        self.pool_files: PoolFiles | None = None
        """Where the pool is kept, by who serves it."""
        self.folder = Path(folder)
        self.devices: dict[str, Type3] = {}
        self.mlds: dict[str, MultiLogicalDevice] = {}
        self.free_heads: dict[str, list[Head]] = {}
        """Heads of devices that are plugged in, which are in no port."""
        self.switches: dict[str, PhysicalSwitch] = {}
        self.virtual: dict[str, VirtualSwitch] = {}
        self.ccis: dict[str, SwitchMailboxCci] = {}
        self.access: dict[str, PoolAccess] = {}
        self.former: dict[str, FormerSlot] = {}
        """Slots by which guests came to the pool of an earlier server, and which this topology has not."""
        self.pool_memory: dict[str, PoolMemory] = {}
        self.hosts: dict[str, LiveHost] = {}
        self.open_doors: dict[str, Door] = {}
        self.problems: list[str] = []
        """What of an earlier run could not be restored, a sentence each."""
        self._stack = ExitStack()
        with ExitStack() as undo:
            undo.callback(self.close)
            if clock is None:
                clock = SystemClock()
                self._stack.callback(clock.close)
            self.clock: Clock = clock
            self.store = Store(Path(given.state) if given.state else None)
            self._stack.callback(self.store.close)
            if serves is not None and given.pool is not None:
                self.pool_files = PoolFiles(serves, given)
                self._stack.callback(self.pool_files.close)
            self._build(clock)
            undo.pop_all()

    @classmethod
    def load(cls, path: str | Path, *, clock: Clock | None = None, serves: bool = False) -> Self:
        """The fabric of a topology file. Who `serves` its pool finds that as a server before has left it; for others it
        is empty. Raises `TopologyError` too."""
        given = topology.load(path)
        return cls(given, folder=Path(path).parent, clock=clock, serves=Path(path) if serves else None)

    @classmethod
    def loads(cls, text: str, *, clock: Clock | None = None) -> Self:
        """The fabric of a topology given as YAML text."""
        return cls(topology.loads(text), clock=clock)

    def __repr__(self) -> str:
        return f"<fabric of {len(self.devices)} devices, hosts {', '.join(self.hosts) or 'none'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close everything; persistent capacity is on its files by then. Twice does no harm."""
        for virtual in self.virtual.values():
            virtual.tenant = Nobody()
        for device in self.devices.values():
            device.space.sync()
        self._stack.close()
        self.devices, self.hosts, self.mlds, self.switches, self.virtual = {}, {}, {}, {}, {}
        self.pool_memory = {}

    # -- building ------------------------------------------------------------------------------------------------

    def _access(self) -> None:
        """Pool access devices, and those of an earlier server."""
        files = self.pool_files
        known = {} if files is None else files.machines()
        try:
            for name in self.topology.access:
                path = None if files is None else files.machines_of(name)
                self.access[name] = access = PoolAccess(name, path)
                self._stack.callback(access.close)
            for name in sorted(known.keys() - self.access.keys()):
                self.former[name] = former = FormerSlot(name, known[name])
                self._stack.callback(former.close)
        except StateDamaged as error:
            raise BuildError(f"pool: {error}") from error

    def _build(self, clock: Clock) -> None:
        try:
            for name, key in self.topology.memory.items():
                self.devices[name] = self._device(name, key, clock)
            for name, multi in self.topology.pools.items():
                self._pool(name, multi, clock)
            self._access()
            for name, way in self.topology.pool_memory.items():
                self.devices[name] = self.pool_memory[name] = self._pool_memory(name, way, clock)
            first = {
                name: shared.plug(self, self._switch(name, switch, clock), switch)
                for name, switch in self.topology.shared.items()
            }
            pool.hold(self)
            self.problems = keep(self.store, self.switches, self.mlds, self.devices, first)
            for live in self.switches.values():
                with live.lock:
                    live.events.forget()  # what was there when its power came on is no change
            for name, one in self.topology.ccis.items():
                self.ccis[name] = cci = SwitchMailboxCci(
                    name,
                    self.switches[one.switch],
                    interrupts=one.interrupts,
                    vcs=virtual_switch_of(self.topology, name, one.switch),
                )
                self._stack.callback(cci.close)
            for name, host in self.topology.hosts.items():
                self.hosts[name] = self._host(name, host)
            self._recover()
        except MemoryFault as error:
            raise BuildError(str(error)) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise BuildError(f"{where}{error.strerror or error}") from error
        for device in self.devices.values():
            if isinstance(device, LogicalDevice):
                device.partitions.discard()
                continue  # volatile bytes of an earlier run are the pool's to clear
            if device.medium.persistent and device.name not in self.pooled:
                device.partitions.discard()
                device.clear_volatile()  # volatile bytes do not outlive the process

    def _recover(self) -> None:
        """Find the bytes that rest in windows since earlier runs, of which this topology may lack some."""
        windows = [one.window for host in self.hosts.values() for one in host.memory.windows]
        for window in windows:
            self._attach(window)
        known = {window.medium.path for window in windows}
        for page in (
            sorted(self.state.glob("*-window*.mem.json")) if self.state and self.state.is_dir() else ()
        ):
            path = page.with_suffix("")
            if path in known or not path.exists():
                continue
            size = path.stat().st_size
            self._attach(Window(0, size, self._medium(path.stem, size, path)))

    def _attach(self, window: Window) -> None:
        for name in {resident.device for resident in window.residents}:
            if name in self.devices:
                self.devices[name].space.attach(window)

    @cached_property
    def state(self) -> Path | None:
        """The folder of what survives the process, or None: the topology's `state`, or where a device's file is."""
        if self.topology.state:
            return Path(self.topology.state)
        files = [key.file for key in self.topology.memory.values() if key.file]
        return Path(files[0]).parent if files else None

    @cached_property
    def pooled(self) -> frozenset[str]:
        """The memory devices and logical devices whose memory is the pool's, by name."""
        return frozenset(self.topology.pool.memory if self.topology.pool else ())

    def pool_sources(self) -> list[pool.MemorySource]:
        """The memory of the pool, for who serves it; nothing where the topology has none."""
        return pool.sources(self)

    def _medium(self, name: str, size: int, path: Path | None) -> Medium:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        medium = Medium.memfd(name, size) if path is None else Medium.open(path, size)
        self._stack.callback(medium.close)
        return medium

    def _device(self, name: str, key: keys.Type3, clock: Clock) -> Type3:
        model = self._model(name, key.model) if key.model else Type3
        home = (
            Path(key.file)
            if key.file
            else self.state / f"{name}.mem"
            if self.state and (key.persistent or key.partition_alignment or dynamic.non_volatile(key))
            else None
        )
        labels = home.with_name(home.name + ".labels") if home else None
        more: dict[str, Any] = {}  # what a model of one's own need not take
        if key.partition_alignment:
            more["partition_alignment"] = key.partition_alignment
        if key.features:
            more["features"] = [vendor.feature(one) for one in key.features]
        if key.cpmu:
            more["cpmu"] = True
        if key.secondary_mailbox:
            more["secondary_mailbox"] = True
        if key.compliance:
            more["compliance"] = True
        try:
            device = model(
                name,
                volatile=key.volatile,
                persistent=key.persistent,
                label_storage=key.label_storage or 0,
                serial=key.serial or 0,
                decoders=key.decoders,
                event_log_depth=key.event_log_depth,
                interrupts=key.interrupts,
                vendor_id=key.vendor_id,
                device_id=key.device_id,
                clock=clock,
                medium=self._medium(
                    name, key.volatile + key.persistent + dynamic.size(key), self._pool_home(name) or home
                ),
                label_medium=self._medium(f"{name}-labels", key.label_storage, labels)
                if key.label_storage
                else None,
                state=self._page(name, home),
                dynamic=[dynamic.region(one) for one in key.dynamic],
                **more,
            )
        except (TypeError, ValueError) as error:
            raise BuildError(f"devices.{name}: {error}") from error
        self._stack.callback(device.close)
        return device

    def _pool_memory(self, name: str, key: keys.PoolMemory, clock: Clock) -> PoolMemory:
        assert self.topology.pool is not None, "the topology holds"
        device = PoolMemory(
            name,
            self.topology.pool.arena,
            pool_rules.sizes(self.topology),
            serial=key.serial or 0,
            clock=clock,
        )
        self._stack.callback(device.close)
        return device

    def _pool_home(self, name: str) -> Path | None:
        """The file of memory that is the pool's, where that is kept."""
        return self.pool_files.home(name) if self.pool_files and name in self.pooled else None

    def _page(self, name: str, home: Path | None) -> StatePage | Path | None:
        """Where a device keeps what else outlives power: in the store, or beside its medium where no folder is."""
        if self.topology.state:
            folder = Path(self.topology.state)
            return self.store.page(name, folder / f"{name}.state" if home is None else _beside(home))
        return None if home is None else _beside(home)

    def _model(self, name: str, path: str) -> type[Type3]:
        module, _, attribute = path.partition(":")
        sys.path.insert(0, str(self.folder.absolute()))
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # the user's module runs here, and may fail in any way
            reason = f"{type(error).__name__}: {error}"
            raise BuildError(f"devices.{name}.class: {path} cannot be imported: {reason}") from error
        finally:
            sys.path.pop(0)
        if not (isinstance(found, type) and issubclass(found, Type3)):
            raise BuildError(f"devices.{name}.class: {path} is no subclass of softcxl.Type3")
        return found

    def _pool(self, name: str, key: keys.MultiLogicalDevice, clock: Clock) -> None:
        folder = Path(self.topology.state) if self.topology.state else None
        page = self.store.page(name, folder / f"{name}.state") if folder else None
        names = {ld: f"{name}.{ld}" for ld in range(len(key.logical_devices))}
        homes = {ld: home for ld, one in names.items() if (home := self._pool_home(one))}
        try:
            device = shared.pool(name, key, clock, page=page, folder=folder, kept=homes)
        except (TypeError, ValueError) as error:
            raise BuildError(f"devices.{name}: {error}") from error
        self._stack.callback(device.close)
        self.mlds[name] = device
        self.devices |= {one.name: one for one in device.logical.values()}
        device.listeners.append(self._reallocated)

    def _reallocated(self, change: LdChange) -> None:
        """A logical device has appeared, vanished, or is another one."""
        if change.old is not None:
            self.devices.pop(change.old.name, None)
        if change.new is not None:
            self.devices[change.new.name] = change.new

    def _switch(self, name: str, key: keys.Switch, clock: Clock) -> PhysicalSwitch:
        switch = PhysicalSwitch(
            name,
            clock=clock,
            ports=len(key.ports),
            virtual=[(one, len(virtual.ports)) for one, virtual in key.virtual.items()],
            serial=key.serial or 0,
        )
        self._stack.callback(switch.close)
        self.switches[name] = switch
        self.virtual |= {one.name: one for one in switch.virtual.values()}
        return switch

    def functions(self, device: str) -> list[str]:
        """The names by which a device's functions have doors: its own, but for slots by which guests reach the pool."""
        return list(self.access[device].functions) if device in self.access else [device]

    def parts(self, device: str) -> dict[str, Function]:
        """The functions of a device beside function 0, by the names of their doors."""
        return {name: one for name in self.functions(device)[1:] if (one := self.function(name)) is not None}

    def function(self, name: str) -> Function | None:
        """What has a door of that name: a device, a mailbox CCI of a switch, a function of a pool access device; None
        where there is none."""
        access = self.access.get(keys.split(name)[0])
        if access is not None:
            return access.functions.get(name)
        return self.ccis.get(name) or self.devices.get(name)

    def _host(self, name: str, key: keys.Host) -> LiveHost:
        memory = HostMemory()
        windows = key.windows
        bases = window_bases(key.memory, [one.size for one in windows], [len(one.targets) for one in windows])
        for number, (window, base) in enumerate(zip(windows, bases, strict=True)):
            if window.shared is not None:
                memory.windows.append(
                    HostWindow(f"window{number}", window, self._shared(window.shared, base))
                )
                continue
            label = f"{name}-window{number}"
            path = self.state / f"{label}.mem" if self.state and "persistent" in window.restrictions else None
            medium = self._medium(label, window.size, path)
            memory.windows.append(HostWindow(f"window{number}", window, Window(base, window.size, medium)))
        reached = routes(self.topology, key)
        regions = tuple(self._programs(key, memory))
        for device_name in reached:
            device = self._reached(name, device_name)
            for one in memory.windows:
                device.space.attach(one.window)
            memory.plug(device)
        live = LiveHost(
            name,
            key,
            memory,
            reached,
            virtual_routes(self.topology, key),
            cci_routes(self.topology, key),
            access_routes(self.topology, key),
            regions,
            self,
        )
        for device_name in {name for region in regions for name in region.key.devices}:
            self._firmware(live, self.devices[device_name])
        return live

    def _reached(self, host: str, name: str) -> Type3:
        """The device in a root port. Of a head of its own it is the host's, whoever would allocate it otherwise."""
        device = self.devices.get(name)
        if device is None:
            raise BuildError(
                f"hosts.{host}: {name} has no memory any more; a fabric manager gave it to others"
            )
        if isinstance(device, LogicalDevice):
            device.bind(host)
        if isinstance(device, PoolMemory):
            device.host = host
        return device

    def _shared(self, device: str, base: int) -> Window:
        """A window of a device's dynamic capacity: its own file, which is every such window's. Or one of the pool's
        memory."""
        if device in self.pool_memory:
            medium = self.pool_memory[device].medium
            return Window(base, medium.size, medium, shared=True)
        capacity = self.mlds[device].dynamic
        assert capacity is not None, "the topology holds"
        return Window(base, capacity.medium.size, capacity.medium, shared=True)

    def _programs(self, key: keys.Host, memory: HostMemory) -> Iterator[FirmwareProgram]:
        ends = [window.base for window in memory.windows]
        used: dict[str, int] = {}  # the first DPA above what a device's regions have taken
        for region in key.regions:
            size = region.size or 0
            skips = []
            for name in region.devices:
                start = self.devices[name].capacity.volatile if region.type == "pmem" else 0
                start = max(start, used.get(name, 0))
                skips.append(start - used.get(name, 0))
                used[name] = start + size // len(region.devices)
            hpa, ends[region.window] = ends[region.window], ends[region.window] + size
            yield FirmwareProgram(region, hpa, size, region.granularity or 256, tuple(skips))

    def _firmware(self, host: LiveHost, device: Type3) -> None:
        """Have the device's decoders programmed after every reset, as platform firmware does."""

        def program() -> None:
            number = 0
            for region in host.regions:
                if device.name in region.key.devices:
                    position = region.key.devices.index(device.name)
                    with host.memory.at(device, position):
                        device.decoders.program(
                            number,
                            hpa=region.hpa,
                            size=region.size,
                            ways=len(region.key.devices),
                            granularity=region.granularity,
                            skip=region.skips[position],
                        )
                    device.dvsec.control.mem_enable = True
                    number += 1

        device.platform = program
        try:
            program()
        except CommitError as error:
            raise BuildError(f"devices.{device.name}: the firmware's region: {error}") from error

    # -- doors ---------------------------------------------------------------------------------------------------

    @contextmanager
    def doors(self, host: str, folder: str | Path, *, spin_us: float = 0) -> Iterator[dict[str, Door]]:
        """Open a vfio-user door, ``folder/NAME.sock``, for each device that `host` reaches; yields them by name.

        Raises `BuildError` where a socket cannot be made.
        """
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(self.door(host, name, folder, spin_us=spin_us))
                for name in self.hosts[host].functions
            }

    @contextmanager
    def door(
        self,
        host: str,
        device: str,
        folder: str | Path,
        *,
        spin_us: float = 0,
        bound: bool = False,
        left: Callable[[], None] | None = None,
    ) -> Iterator[Door]:
        """Open a vfio-user door, ``folder/NAME.sock``, by which `host` comes to one device. `left` is called whenever
        a client has gone.

        A device that the topology plugs in elsewhere, or nowhere, is this host's while the door is open: its
        decoders show in this host's windows, and when the door has closed it has lost power (a cold reset), or, where
        a switch has `bound` it to the host and goes on to power it, its link (a hot reset). Raises
        `BuildError` for a device that there is not or that has an open door, and where the socket cannot be made.
        """
        function = self.function(device)
        if function is None:
            names = ", ".join([*self.devices, *self.ccis, *self.access])
            raise BuildError(f"devices.{device}: there is none; there are {names or 'none'}")
        if device in self.pooled:
            raise BuildError(f"devices.{device}: its memory is the pool's")
        if device in self.open_doors:
            raise BuildError(f"devices.{device}: is in use, its door is {self.open_doors[device].path}")
        live = self.hosts[host]
        if function.attached:
            raise BuildError(f"devices.{device}: is in use by a host in this process")
        with ExitStack() as stack:
            access = self.access.get(keys.split(device)[0])
            if access is not None:
                access.host = host
            if device not in live.routes and isinstance(function, Type3):
                stack.enter_context(_lent(function, live.memory, Reset.HOT if bound else Reset.COLD))
            try:
                door = stack.enter_context(
                    Door(function, Path(folder) / f"{device}.sock", spin_us=spin_us, left=left)
                )
            except (DoorError, OSError) as error:
                raise BuildError(f"devices.{device}: {error}") from error
            self.open_doors[device] = door
            stack.callback(self.open_doors.pop, device)
            yield door


def _beside(home: Path) -> Path:
    return home.with_name(home.name + ".state")


@contextmanager
def _lent(device: Type3, memory: HostMemory, kind: Reset) -> Iterator[None]:
    """The device is plugged into a host that is not its own, without its own one's firmware.

    It comes freshly reset, and goes so. One that had its power from the host leaves the host's windows; what a switch
    has bound may find the host there again, with its bytes where they were.
    """
    usual, firmware = device.decoders.host, device.platform
    device.platform = lambda: None
    device.reset(kind)
    for one in memory.windows:
        device.space.attach(one.window)
    memory.plug(device)
    try:
        yield
    finally:
        device.reset(kind)
        device.decoders.host, device.platform = usual, firmware
        if kind is Reset.COLD:
            leave_windows(device, memory)
