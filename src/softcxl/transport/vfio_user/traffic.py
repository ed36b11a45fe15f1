"""What went through a door, counted. Plain additions by the door's thread: cheap enough to be always on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Counts since the door was opened. Bytes are of data, without headers.

    `reads` + `writes` is the number of traps that a guest took (each write of a multi-write counts).
    """

    connections: int = 0
    messages: int = 0
    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    written_bytes: int = 0
    resets: int = 0
    interrupts: int = 0
    interrupts_dropped: int = 0
    """Interrupts that the guest had not set up: fired at nobody."""
    dma_maps: int = 0
    dma_unmaps: int = 0
    dma_direct: int = 0
    """Accesses of the function to guest memory through a shared file."""
    dma_messages: int = 0
    """Accesses of the function to guest memory that took messages to the client."""
    refused: int = 0
    """Commands answered with an errno, or dropped where no reply was wanted."""
    faults: int = 0
    """Exceptions of the port: bugs of ours, answered with EIO."""
    protocol_errors: int = 0
    """Connections ended because their bytes made no sense."""

    @property
    def traps(self) -> int:
        """Region accesses that took a message."""
        return self.reads + self.writes
