"""What can go wrong with shared memory.

PoolError
├── Empty            nothing came in time
├── Full             no room came in time
├── Closed           the other side has gone, and nothing of it is left
├── TooLong          it can never fit
├── Corrupt          what is in shared memory cannot be: somebody wrote there who should not have
├── Foreign          nothing of ours is there, or something of another version
├── Lost             who had taken a call died: whether it was done is not known
└── Stale            it is no longer yours: given up, or you were taken for dead
"""

from __future__ import annotations


class PoolError(Exception):
    """Base of the errors of shared memory."""

    sentence = "the pool failed"

    def __str__(self) -> str:
        return super().__str__() or self.sentence


class Empty(PoolError, TimeoutError):
    """Nothing came in time."""

    sentence = "nothing came in time"


class Full(PoolError, TimeoutError):
    """No room came in time."""

    sentence = "no room came in time"


class Closed(PoolError):
    """The other side has gone, and nothing of it is left."""

    sentence = "the other side has gone"


class TooLong(PoolError, ValueError):
    """It can never fit."""

    sentence = "it is longer than what there is room for"


class Corrupt(PoolError):
    """What is in shared memory cannot be."""

    sentence = "what is in shared memory cannot be: somebody else has written there"


class Foreign(PoolError):
    """Nothing of ours is there, or something of another version."""

    sentence = "nothing of this kind is there, or one of another version"


class Lost(PoolError):
    """Who had taken a call died: whether it was done is not known."""

    sentence = "who had taken it died; whether it was done is not known"


class Stale(PoolError):
    """It is no longer yours: given up, or you were taken for dead."""

    sentence = "it is no longer this one's"
