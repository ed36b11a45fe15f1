"""A fabric manager's client: switches and devices by the FM API, whoever made them.

::

    async with fm.connect("tcp:127.0.0.1:2508") as switch:
        for one in await switch.virtual_switches():
            print(one.id, [vppb.status for vppb in one.vppbs])
        await switch.bind(vcs=0, vppb=1, port=0, ld=1)
        print(await switch.port(0).ld_allocations())

`connect` is at one endpoint, `Connection` at all that are behind an address. A `Switch` leads to the `Device` behind a
port, an MLD to its logical devices: their commands are tunnelled. What is asked and answered are the records of
`softcxl.spec`; a return code that is no success is a `CommandRefused`.
"""

from softcxl.fm.address import ServerAddress, TcpAddress
from softcxl.fm.channel import Answer, Channel
from softcxl.fm.component import Component
from softcxl.fm.connection import Connection, connect
from softcxl.fm.device import Allocations, Device, Heads
from softcxl.fm.dynamic import DynamicCapacity, Extent, Tag
from softcxl.fm.errors import (
    AddressError,
    BadAnswer,
    CommandRefused,
    EndpointRefused,
    FmError,
    NoAnswer,
)
from softcxl.fm.events import Event, EventBatch
from softcxl.fm.interface import Interface, Progress
from softcxl.fm.ports import PhysicalPorts, SwitchComponent
from softcxl.fm.switch import Switch
from softcxl.fm.virtual import VirtualSwitch, VirtualSwitches
from softcxl.transport.mctp import Dialect

__all__ = [
    "AddressError",
    "Allocations",
    "Answer",
    "BadAnswer",
    "Channel",
    "CommandRefused",
    "Component",
    "Connection",
    "Device",
    "Dialect",
    "DynamicCapacity",
    "EndpointRefused",
    "Event",
    "EventBatch",
    "Extent",
    "FmError",
    "Heads",
    "Interface",
    "NoAnswer",
    "PhysicalPorts",
    "Progress",
    "ServerAddress",
    "Switch",
    "SwitchComponent",
    "Tag",
    "TcpAddress",
    "VirtualSwitch",
    "VirtualSwitches",
    "connect",
]
