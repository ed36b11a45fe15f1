"""Scan media: read a range in the background, and tell what in it is poisoned (CXL 3.1 §8.2.9.9.4.4 to 4.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.device.cci import Background, CommandError, CommandSet, command
from softcxl.device.poison import LINE
from softcxl.device.sweep import Sweep
from softcxl.spec.command.base import CommandEffects, ReturnCode
from softcxl.spec.command.poison import (
    GET_SCAN_MEDIA_CAPABILITIES,
    GET_SCAN_MEDIA_RESULTS,
    SCAN_MEDIA,
    GetScanMediaCapabilitiesResponse,
    GetScanMediaResultsResponse,
    MediaErrorAddress,
    MediaErrorRecord,
    PoisonSource,
    ScanMediaRange,
    ScanMediaRequest,
    ScanMediaResultsFlags,
)
from softcxl.spec.cxl.events import TransactionType

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

SPEED = 16 << 30
"""Bytes that are scanned in a second."""


class ScanCommands(CommandSet):
    """Get Scan Media Capabilities, Scan Media and Get Scan Media Results.

    What is found goes to the poison list, as it is found; where the list is full, or the scan is aborted, it stops and
    tells where to go on. Results too many for one reply are fetched by asking again, after the last from the first.
    """

    def __init__(self, device: Type3) -> None:
        self._device = device
        self._sweep = Sweep(device, self._found)
        self._room = (
            device.cci.payload_max - GetScanMediaResultsResponse.__layout__.size
        ) // MediaErrorRecord.__layout__.size
        self._quiet = False
        self._stopped: int | None = None  # the address where it had to stop
        self._results: list[tuple[int, int, int]] | None = None
        self._next = 0

    def reset(self) -> None:
        """A conventional reset: there are no results. The function's lock is held."""
        self._results = None

    @command(GET_SCAN_MEDIA_CAPABILITIES)
    def get_capabilities(self, request: ScanMediaRange) -> GetScanMediaCapabilitiesResponse:
        self._device.poison.aligned(request.address, request.length * LINE)
        milliseconds = -(-request.length * LINE * 1000 // SPEED)
        return GetScanMediaCapabilitiesResponse(estimated_time=min(milliseconds, 0xFFFFFFFF))

    @command(SCAN_MEDIA, effects=CommandEffects.make(background_operation=True, abort_supported=True))
    def scan(self, request: ScanMediaRequest) -> Background:
        start, length = request.address, request.length * LINE
        self._device.poison.aligned(start, length)
        if not length:
            raise CommandError(ReturnCode.INVALID_INPUT)
        self._device.poison.unlocked(start, length)
        self._quiet, self._stopped, self._results = request.flags.no_event_log, None, None
        self._device.poison.scanning = True
        seconds = length / SPEED
        self._sweep.begin(start, start + length, seconds)
        return Background(seconds, self._finish, abort=self._abort)

    @command(GET_SCAN_MEDIA_RESULTS)
    def get_results(self) -> GetScanMediaResultsResponse:
        """Unsupported as long as no scan has ended, as in QEMU."""
        if self._results is None:
            raise CommandError(ReturnCode.UNSUPPORTED)
        told = self._results[self._next : self._next + self._room]
        records = []
        for first, size, source in told:
            address = MediaErrorAddress(first)
            address.source = PoisonSource(source)
            records.append(MediaErrorRecord(address=address, length=size // LINE))
        self._next += len(told)
        more = self._next < len(self._results)
        if not more:
            self._next = 0
        stopped = self._stopped
        return GetScanMediaResultsResponse(
            restart_address=stopped or 0,
            restart_length=0 if stopped is None else (self._sweep.end - stopped) // LINE,
            flags=ScanMediaResultsFlags.make(more=more, stopped_prematurely=stopped is not None),
            count=len(records),
            records=records,
        )

    # -- the scan ------------------------------------------------------------------------------------------------

    def _found(self, line: int) -> None:
        """Where the list is full the line is not in it, and the scan goes no further."""
        by = TransactionType.HOST_SCAN_MEDIA
        if self._stopped is None and not self._device.poison.notice(line, by, quiet=self._quiet):
            self._stopped = line
            self._sweep.stop()

    def _finish(self) -> ReturnCode:
        poison, sweep = self._device.poison, self._sweep
        sweep.stop()
        while (
            self._stopped is None
            and (line := poison.latent.any_in(sweep.start, sweep.end - sweep.start)) is not None
        ):
            self._found(line)
        self._conclude()
        return ReturnCode.SUCCESS

    def _abort(self) -> None:
        if self._stopped is None:
            self._stopped = int(self._sweep.position) & -LINE
        self._sweep.stop()
        self._conclude()

    def _conclude(self) -> None:
        poison, sweep = self._device.poison, self._sweep
        poison.scanning = False
        end = sweep.end if self._stopped is None else self._stopped
        self._results, self._next = list(poison.map.runs(sweep.start, end - sweep.start)), 0
