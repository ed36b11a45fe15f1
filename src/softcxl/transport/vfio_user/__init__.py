"""vfio-user: an unmodified QEMU (`-device vfio-user-pci`) drives a Python function through a Unix socket.

`Door` listens and serves one client at a time. What it does with a message is in `session`, one level below
`exchange` (who reads the socket, and commands to the client), `framing` (bytes and descriptors), and beside
them `version`, `dma`, `irq` and `describe`, one for each part of the protocol.
"""

from softcxl.transport.vfio_user.door import Door
from softcxl.transport.vfio_user.errors import DoorError, DoorInUse
from softcxl.transport.vfio_user.traffic import Traffic

__all__ = ["Door", "DoorError", "DoorInUse", "Traffic"]
