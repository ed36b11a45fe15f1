"""The pool access device: a PCI slot whose functions show a guest the memory pool.

Function 0 has registers, by which programs in the guest connect and ring (`control`); the others have the pool's
memory in their BARs, which guests map and use at full speed (`windows`). Interrupts and mapped memory are not on one
function, because QEMU stops to map a function's memory once it has interrupted by INTx. `slot` has them all, and
`server` says what has to be behind it. `memory` is another way, a memory device that has the pool's memory for its own.
"""

from softcxl.device.access.control import AccessControl
from softcxl.device.access.memory import PoolMemory
from softcxl.device.access.server import AccessServer, Memory, Visitor
from softcxl.device.access.slot import PoolAccess

__all__ = ["AccessControl", "AccessServer", "Memory", "PoolAccess", "PoolMemory", "Visitor"]
