"""RAS: errors of CXL.cache and CXL.mem, as a component logs them and tells of them (CXL 3.1 §8.2.4.17, §12.2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from softcxl.device.component import ComponentRegisters
from softcxl.pci.aer import Kind, Reporter, report
from softcxl.spec.cxl.component import (
    RAS_VERSION,
    ComponentCapabilityId,
    Ras,
    RasCorrectableStatus,
    RasHeaderLog,
    RasUncorrectableStatus,
)
from softcxl.wire import Reset, on_write

HEADERS_RECORDED = 8
"""Errors whose headers a component keeps until software has taken them."""

HEADER_DWORDS = RasHeaderLog.__layout__.width // 32

_CORRECTABLE = {field.name: field.mask for field in RasCorrectableStatus.__layout__.fields}
_UNCORRECTABLE = {field.name: field.mask for field in RasUncorrectableStatus.__layout__.fields}


class ProtocolErrors:
    """The CXL RAS capability of `function`, placed in its component registers: `registers`.

    Several headers are recorded: First Error Pointer and Header Log are those of the first error that is not yet
    cleared, and when software clears its status bit, those of the next; a bit of which more errors are recorded
    stays set. A masked error is in the status, and nowhere else. Others are signalled as internal errors of AER,
    and are fatal where both the RAS capability and AER say so.
    """

    def __init__(self, function: Reporter, component: ComponentRegisters) -> None:
        self._function = function
        self._recorded: deque[tuple[int, int]] = deque()  # status bits and headers, the first error first
        self.registers = component.add(ComponentCapabilityId.RAS, RAS_VERSION, Ras, hooks=self)

    def inject(self, error: str, *, correctable: bool = False, header: Sequence[int] = ()) -> Kind | None:
        """Have an error happen, by the name of its field in the status register: ``inject("mem_data_ecc")``.

        `header` are up to sixteen dwords for the header log, of an uncorrectable one. Returns the kind of message
        that it is signalled with, None where masks or enables of RAS or AER keep it. Raises `ValueError` for an
        unknown error or what is no header. Safe from any thread that does not hold the function's lock.
        """
        known = _CORRECTABLE if correctable else _UNCORRECTABLE
        if error not in known:
            raise ValueError(f"error {error!r}: known are {', '.join(known)}")
        if len(header) > HEADER_DWORDS or not all(0 <= dword < 1 << 32 for dword in header):
            raise ValueError(f"header: up to {HEADER_DWORDS} numbers of 32 bits, not {list(header)}")
        if correctable and header:
            raise ValueError(f"header: the correctable error {error} has none")
        bit, registers = known[error], self.registers
        with self._function.lock:
            if correctable:
                registers.correctable_status.assign(int(registers.correctable_status) | bit)
                masked, fatal = int(registers.correctable_mask) & bit, False
            else:
                registers.uncorrectable_status.assign(int(registers.uncorrectable_status) | bit)
                masked = int(registers.uncorrectable_mask) & bit
                fatal = bool(int(registers.uncorrectable_severity) & bit)
                if not masked and len(self._recorded) < HEADERS_RECORDED:
                    self._recorded.append(
                        (bit, sum(dword << 32 * place for place, dword in enumerate(header)))
                    )
                    self._show()
        if masked:
            return None
        return report(self._function, "internal", correctable=correctable, fatal=fatal)

    def reset(self, kind: Reset) -> None:
        """Headers are kept as their registers are: until power goes. The function's lock is held."""
        if kind is Reset.COLD:
            self._recorded.clear()

    def _show(self) -> None:
        """The first error's pointer and header."""
        if self._recorded:
            bit, header = self._recorded[0]
            self.registers.control.first_error_pointer = bit.bit_length() - 1
            self.registers.header_log.value = header

    @on_write(Ras.uncorrectable_status)
    def _clear(self, old: int, new: int) -> None:
        gone, recorded = old & ~new, self._recorded
        if recorded and recorded[0][0] & gone:
            first, _ = recorded.popleft()
            if any(bit == first for bit, _ in recorded):
                self.registers.uncorrectable_status.assign(new | first)
                gone &= ~first
        self._recorded = deque(one for one in recorded if not one[0] & gone)
        self._show()
