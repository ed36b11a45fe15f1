"""MCTP over TCP, as existing fabric managers speak it. No standard says it: packets are the port's whole stream.

Each is `PACKET_SIZE` bytes, a `PacketHeader` and a payload that is padded at its end; the receiver knows from the
message's own header how much of the last packet counts. Packet sequence numbers go on over messages, for each
direction of a connection.
"""

from __future__ import annotations

from typing import Final

from softcxl.spec.mctp.packet import BASELINE_TRANSMISSION_UNIT, PacketHeader

DEFAULT_PORT: Final = 2508
PAYLOAD_SIZE: Final = BASELINE_TRANSMISSION_UNIT
PACKET_SIZE: Final = PacketHeader.__layout__.size + PAYLOAD_SIZE
