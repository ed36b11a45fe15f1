"""From what a driver of ours raises to the errno that Linux answers with."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from softcxl.host.errors import BusyError, MailboxError, RegionError
from softcxl.host.sysfs.node import SysfsError
from softcxl.spec.command.base import ReturnCode

_MAILBOX: dict[int, int] = {
    ReturnCode.INVALID_PHYSICAL_ADDRESS: errno.EFAULT,
    ReturnCode.INJECT_POISON_LIMIT: errno.EBUSY,
}
"""What is not ENXIO (Linux drivers/cxl/cxlmem.h, CMD_CMD_RC_TABLE)."""


@contextmanager
def answered(number: int = errno.ENXIO) -> Iterator[None]:
    """What goes wrong inside becomes a `SysfsError`: a mailbox's return code by the kernel's table, what is in use
    EBUSY, any other refusal `number`."""
    try:
        yield
    except MailboxError as error:
        raise SysfsError(_MAILBOX.get(error.code, errno.ENXIO), str(error)) from None
    except BusyError as error:
        raise SysfsError(errno.EBUSY, str(error)) from None
    except RegionError as error:
        raise SysfsError(number, str(error)) from None
