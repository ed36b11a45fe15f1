"""What can go wrong with a guest, as one tree.

    LabError                   anything below
    ├── PartsError             something a guest needs is absent or unsuitable; says how to get it
    ├── FetchError             packages could not be fetched or unpacked
    ├── BuildError             a kernel could not be built from its sources
    ├── PlanError              a guest plan asks for what QEMU or the standard cannot give
    ├── LaunchError            QEMU did not start; carries what it said
    ├── MonitorError           QEMU answered a monitor command with an error, or hung up
    └── GuestError             a running guest misbehaved; `.console` is the end of its console
        ├── GuestPanic         its kernel panicked
        ├── GuestTimeout       it did not answer in time
        ├── CommandFailed      a command that had to succeed did not
        ├── CommandTimeout     a command ran too long and was ended; the guest goes on
        ├── GuestGone          QEMU exited, or the guest powered off or restarted by itself
        └── GuestUnfit         it booted and cannot do the work: no CXL, no share, no console port

Every message is a sentence that names what was given and what would have been right.
"""

from __future__ import annotations

from softcxl.fabric.errors import SoftCXLError


class LabError(SoftCXLError):
    """A guest, or something a guest needs, failed."""


class PartsError(LabError):
    """QEMU, a kernel or a guest tool is absent or unsuitable."""

    exit_code = 3


class FetchError(LabError):
    """Packages could not be fetched or unpacked."""

    exit_code = 3


class BuildError(LabError):
    """A kernel cannot be built from its sources."""

    exit_code = 3


class PlanError(LabError):
    """A guest plan cannot be carried out."""

    exit_code = 2


class LaunchError(LabError):
    """QEMU did not start."""


class MonitorError(LabError):
    """QEMU refused a monitor command, or closed the monitor."""


class GuestError(LabError):
    """A guest misbehaved. `console` holds the last lines of its console, possibly none."""

    def __init__(self, message: str, console: str = "") -> None:
        self.console = console
        tail = f"\nThe end of the guest's console:\n{_indented(console)}" if console.strip() else ""
        super().__init__(message + tail)
        self.message = message


class GuestPanic(GuestError):
    """The guest's kernel panicked."""


class GuestTimeout(GuestError):
    """The guest did not answer in time."""


class CommandFailed(GuestError):
    """A command in the guest that had to succeed ended with a non-zero status."""


class CommandTimeout(GuestError):
    """A command in the guest ran too long and was ended; the guest itself still answers."""


class GuestGone(GuestError):
    """QEMU exited, or the guest powered off or restarted by itself."""


class GuestUnfit(GuestError):
    """The guest booted but cannot do what it was booted for."""


def _indented(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.rstrip().splitlines())
