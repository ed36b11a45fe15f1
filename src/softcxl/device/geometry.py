"""Where the bytes of a device rest: DRAM channels, ranks, banks, rows, columns, and device addresses to and from them.

Neighbouring lines go to the channels and sub-channels in turn, then along a row, then over bank groups, banks and
ranks; the row is the address's highest part. A sub-channel is 32 bits of data wide, as in DDR5 (JEDEC JESD79-5), and a
line is one burst of 16.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

LINE = 64
BURST = 16
"""Columns of a line."""
ALL_NIBBLES = (1 << 10) - 1
"""The nibbles of a sub-channel: eight of data, two of check bits."""
ROWS_MAX = 1 << 16
"""Rows of a bank at most: the addresses that DDR5 has for them."""


class Scope(enum.IntEnum):
    """How much of the media a fault has, or a repair replaces; numbered as `SparingSubclass`."""

    CACHELINE = 0
    ROW = 1
    BANK = 2
    RANK = 3


@dataclass(frozen=True, slots=True)
class Place:
    """One line of the media."""

    channel: int = 0
    rank: int = 0
    bank_group: int = 0
    bank: int = 0
    row: int = 0
    column: int = 0
    sub_channel: int = 0

    def within(self, scope: Scope) -> tuple[int, ...]:
        """What names the line, row, bank or rank that this line is part of, in whichever sub-channel."""
        where = (self.channel, self.rank, self.bank_group, self.bank, self.row, self.column)
        return where[: {Scope.RANK: 2, Scope.BANK: 4, Scope.ROW: 5, Scope.CACHELINE: 6}[scope]]


@dataclass(frozen=True, slots=True)
class Geometry:
    """The media of `capacity` bytes: how many there are of each part in the one above it."""

    capacity: int
    channels: int = 2
    sub_channels: int = 2
    ranks: int = 2
    bank_groups: int = 8
    banks: int = 4
    columns: int = 1024

    @classmethod
    def of(cls, capacity: int) -> Geometry:
        """A usual geometry, with as many channels, then ranks, as the capacity needs."""
        channels, ranks = 2, 2
        while (one := cls(capacity, channels=channels, ranks=ranks)).rows > ROWS_MAX:
            if channels < 128:
                channels *= 2
            elif ranks < 128:
                ranks *= 2
            else:
                break  # beyond what events can tell; rows have 24 bits there
        return one

    @property
    def row_lines(self) -> int:
        """Lines of a row of one sub-channel."""
        return self.columns // BURST

    @property
    def rows(self) -> int:
        """Rows of a bank."""
        across = self.channels * self.sub_channels * self.ranks * self.bank_groups * self.banks
        return -(-self.capacity // (LINE * self.row_lines * across))

    def place(self, dpa: int) -> Place:
        """The line at a device address."""
        rest, channel = divmod(dpa // LINE, self.channels)
        rest, sub_channel = divmod(rest, self.sub_channels)
        rest, line = divmod(rest, self.row_lines)
        rest, bank_group = divmod(rest, self.bank_groups)
        rest, bank = divmod(rest, self.banks)
        row, rank = divmod(rest, self.ranks)
        return Place(channel, rank, bank_group, bank, row, line * BURST, sub_channel)

    def dpa(self, place: Place) -> int:
        """The device address of a line."""
        at = place.row * self.ranks + place.rank
        at = at * self.banks + place.bank
        at = at * self.bank_groups + place.bank_group
        at = at * self.row_lines + place.column // BURST
        at = at * self.sub_channels + place.sub_channel
        return (at * self.channels + place.channel) * LINE

    def holds(self, place: Place) -> bool:
        """Whether the media have such a line."""
        return (
            place.channel < self.channels
            and place.sub_channel < self.sub_channels
            and place.rank < self.ranks
            and place.bank_group < self.bank_groups
            and place.bank < self.banks
            and place.row < self.rows
            and place.column < self.columns
            and self.dpa(place) < self.capacity
        )
