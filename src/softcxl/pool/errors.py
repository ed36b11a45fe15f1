"""What can go wrong with shared memory.

PoolError
├── Empty            nothing came in time
├── Full             no room came in time
├── Closed           the other side has gone, and nothing of it is left
│   └── NoWorker         nobody serves it
├── TooLong          it can never fit
├── Corrupt          what is in shared memory cannot be: somebody wrote there who should not have
├── Foreign          nothing of ours is there, or something of another version
├── Lost             who had taken a call died: whether it was done is not known
├── Stale            it is no longer yours: given up, freed, or you were taken for dead
├── Unprotected      it would take a journal to write this whole, and there is none
├── Poisoned         no healthy copy has these bytes
├── Failed           no copy is healthy
├── Torn             who wrote these bytes died on the way
├── Unmapped         it lies in memory that is not mapped here
├── NativeMissing    the C core is needed, and could not be built here
├── NoServer         no server is there, or none that answers
├── RemoteError      a function of a service raised
│   └── BadCall          a service has no such function, or it takes no such arguments
└── what the server answers
    ├── Refused          a request that cannot be: sizes, names, numbers
    ├── NoSuchName       there is no such region, channel or service
    ├── NameTaken        the name is another's
    ├── NoRoom           there is not as much memory as that, or not on as many devices
    ├── Denied           it is another's
    ├── QuotaExceeded    this client's name may have no more
    ├── Busy             somebody is at it
    └── ServerFailed     a mistake of the server's
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "BadCall",
    "Busy",
    "Closed",
    "Corrupt",
    "Denied",
    "Empty",
    "Failed",
    "Foreign",
    "Full",
    "Lost",
    "NameTaken",
    "NativeMissing",
    "NoRoom",
    "NoServer",
    "NoSuchName",
    "NoWorker",
    "Poisoned",
    "PoolError",
    "QuotaExceeded",
    "Refused",
    "RemoteError",
    "ServerFailed",
    "Stale",
    "TooLong",
    "Torn",
    "Unmapped",
    "Unprotected",
]


class PoolError(Exception):
    """Base of the errors of the pool and its memory."""

    sentence = "the pool failed"
    """What it says where nothing more is known, as of an error of the C core."""

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


class NoWorker(Closed):
    """Nobody serves it: there is no such service, or its last worker has gone."""

    sentence = "nobody serves it"


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
    """It is no longer yours: given up, freed, or you were taken for dead."""

    sentence = "it is no longer this one's"


class Unprotected(PoolError):
    """It would take a journal to write this whole, and there is none."""

    sentence = "one copy alone is healthy, and there is no journal to write it whole by"


class Poisoned(PoolError):
    """No healthy copy has these bytes: each has poison there. `ranges` are their offsets and sizes in the region."""

    sentence = "every healthy copy has poison"

    def __init__(self, *args: object, ranges: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(*args)
        self.ranges = tuple(ranges)


class Failed(PoolError):
    """No copy is healthy."""

    sentence = "no copy is healthy"


class Torn(PoolError):
    """Who wrote these bytes died on the way: they are neither the old nor the new, until they are written again."""

    sentence = (
        "who wrote these bytes died on the way: they are neither old nor new until they are written again"
    )


class Unmapped(PoolError):
    """It lies in memory that is not mapped here: the server hands it over."""

    sentence = "it lies in memory that is not mapped here"


class NativeMissing(PoolError, RuntimeError):
    """The C core is needed, and could not be built here."""

    sentence = (
        "softcxl.pool was installed without its C core: a C compiler and Python's headers are needed "
        "(Debian, Ubuntu: gcc and python3-dev), then install SoftCXL again; or `softcxl lab core`, which fetches them"
    )


class NoServer(PoolError, ConnectionError):
    """No server is there, or none that answers."""

    exit_code = 3
    """What the command line ends with."""
    sentence = "no server of a pool is there"


class RemoteError(PoolError):
    """A function of a service raised what has no counterpart here.

    `type` is the exception's class there, as `module.name`; `trace` the traceback there, as text.
    """

    sentence = "the service failed at it"

    def __init__(self, message: str = "", type: str = "", trace: str = "") -> None:
        super().__init__(message)
        self.type = type
        self.trace = trace


class BadCall(RemoteError, TypeError):
    """A service has no such function, or it takes no such arguments."""

    sentence = "the service has no such function, or it takes no such arguments"


class Refused(PoolError, ValueError):
    """A request that cannot be."""

    sentence = "the request cannot be"


class NoSuchName(PoolError, LookupError):
    """There is no such region, channel or service."""

    sentence = "there is nothing of that name"


class NameTaken(PoolError):
    """The name is another's."""

    sentence = "the name is taken"


class NoRoom(PoolError):
    """There is not as much memory as that, or not on as many devices."""

    sentence = "there is no room"


class Denied(PoolError, PermissionError):
    """It is another's."""

    sentence = "it is another's"


class QuotaExceeded(PoolError):
    """This client's name may have no more."""

    sentence = "the quota is used up"


class Busy(PoolError, TimeoutError):
    """Somebody is at it, and was for as long as one would wait."""

    sentence = "somebody is at it"


class ServerFailed(PoolError):
    """A mistake of the server's."""

    sentence = "the server has failed at it"
