"""HDM decoders: the registers that map host addresses to a device's memory (CXL 3.1 §8.2.4.20).

`HdmDecoders` is the head of the capability; decoder n follows at `DECODER_OFFSET` + n × `DECODER_STRIDE`.
Decoder fields are RWL: the device locks them while a decoder is committed or locked.
"""

from __future__ import annotations

import enum
from typing import Final

from softcxl.wire import RO, RW, RWL, Block, HwInit, Register, at, bit, bits

HDM_VERSION: Final = 3
"""Version of the HDM decoder capability in CXL 3.1."""

DECODER_OFFSET: Final = 0x10
DECODER_STRIDE: Final = 0x20

DECODER_COUNTS: Final = (1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32)
"""Decoders by their encoding in Decoder Count; devices have ten at most (CXL 3.1 §8.2.4.20.1)."""


class CoherencyModels(enum.IntEnum):
    """Coherency models that a device's decoders can be set to (CXL 3.1 §8.2.4.20.1)."""

    UNKNOWN = 0
    DEVICE_COHERENT = 1
    HOST_ONLY = 2
    EITHER = 3


class HdmCapability(Register, width=32, spec="CXL 3.1 §8.2.4.20.1"):
    """CXL HDM Decoder Capability Register."""

    decoder_count = bits(3, 0, HwInit, "index into `DECODER_COUNTS`")
    target_count = bits(7, 4, HwInit, "targets a decoder can have: 1, 2, 4 or 8; 0 in a device")
    interleave_11_8 = bit(8, HwInit, "can interleave on address bits 11:8 (256 B to 2 KiB)")
    interleave_14_12 = bit(9, HwInit, "can interleave on address bits 14:12 (4 KiB to 16 KiB)")
    poison_on_decode_error_capable = bit(10, HwInit)
    interleave_3_6_12 = bit(11, HwInit, "can be one of 3, 6 or 12 ways")
    interleave_16 = bit(12, HwInit, "can be one of 16 ways")
    uio_capable = bit(13, HwInit)
    uio_decoder_count = bits(19, 16, HwInit)
    memdata_nxm_capable = bit(20, HwInit)
    coherency_models = bits(22, 21, HwInit, CoherencyModels)


class HdmGlobalControl(Register, width=32, spec="CXL 3.1 §8.2.4.20.2"):
    """CXL HDM Decoder Global Control Register."""

    poison_on_decode_error = bit(0, RW, "an address that no decoder maps reads as poison")
    hdm_decoder_enable = bit(1, RW, "decoders replace the DVSEC range registers")


class HdmDecoders(Block, size=0x10, spec="CXL 3.1 §8.2.4.20"):
    """CXL HDM Decoder Capability Structure, without its decoders."""

    capability = at(0x00, HdmCapability)
    global_control = at(0x04, HdmGlobalControl)


class DecoderBaseLow(Register, width=32, spec="CXL 3.1 §8.2.4.20.3"):
    """CXL HDM Decoder n Base Low Register."""

    address = bits(31, 28, RWL, "bits 31:28 of the host physical address")


class DecoderBaseHigh(Register, width=32, spec="CXL 3.1 §8.2.4.20.4"):
    """CXL HDM Decoder n Base High Register."""

    address = bits(31, 0, RWL, "bits 63:32 of the host physical address")


class DecoderSizeLow(Register, width=32, spec="CXL 3.1 §8.2.4.20.5"):
    """CXL HDM Decoder n Size Low Register."""

    bytes = bits(31, 28, RWL, "bits 31:28 of the size in bytes of host address space")


class DecoderSizeHigh(Register, width=32, spec="CXL 3.1 §8.2.4.20.6"):
    """CXL HDM Decoder n Size High Register."""

    bytes = bits(31, 0, RWL, "bits 63:32 of the size in bytes of host address space")


class DecoderControl(Register, width=32, spec="CXL 3.1 §8.2.4.20.7"):
    """CXL HDM Decoder n Control Register."""

    interleave_granularity = bits(3, 0, RWL, "256 bytes << value, 0 to 6")
    interleave_ways = bits(7, 4, RWL, "0 to 4: 1 << value ways, 8 to 10: 3 << (value - 8)")
    lock_on_commit = bit(8, RWL, "once committed, nothing changes until the next conventional reset")
    commit = bit(9, RWL, "a one asks for the decoder to take effect, a zero for it to stop")
    committed = bit(10, RO)
    error_not_committed = bit(11, RO, "the values do not fit; set within the commit timeout")
    host_only = bit(12, RWL, "target range type; set: host-only coherent (HDM-H), clear: device coherent")
    back_invalidate = bit(13, RWL)
    uio = bit(14, RWL)
    uio_granularity = bits(19, 16, RWL, "upstream interleave granularity")
    uio_ways = bits(23, 20, RWL, "upstream interleave ways")
    interleave_set_position = bits(27, 24, RWL)


class DpaSkipLow(Register, width=32, spec="CXL 3.1 §8.2.4.20.8"):
    """CXL HDM Decoder n DPA Skip Low Register, of a device."""

    bytes = bits(31, 28, RWL, "bits 31:28 of the device addresses left out below this decoder's")


class DpaSkipHigh(Register, width=32, spec="CXL 3.1 §8.2.4.20.9"):
    """CXL HDM Decoder n DPA Skip High Register, of a device."""

    bytes = bits(31, 0, RWL, "bits 63:32 of the device addresses left out below this decoder's")


class TargetListLow(Register, width=32, spec="CXL 3.1 §8.2.4.20.8"):
    """CXL HDM Decoder n Target List Low Register, of a host bridge or switch: port numbers by position."""

    target0 = bits(7, 0, RWL)
    target1 = bits(15, 8, RWL)
    target2 = bits(23, 16, RWL)
    target3 = bits(31, 24, RWL)


class TargetListHigh(Register, width=32, spec="CXL 3.1 §8.2.4.20.9"):
    """CXL HDM Decoder n Target List High Register, of a host bridge or switch: port numbers by position."""

    target4 = bits(7, 0, RWL)
    target5 = bits(15, 8, RWL)
    target6 = bits(23, 16, RWL)
    target7 = bits(31, 24, RWL)


class Decoder(Block, size=DECODER_STRIDE, spec="CXL 3.1 §8.2.4.20"):
    """What an HDM decoder of a device, a host bridge and a switch have alike."""

    base_low = at(0x00, DecoderBaseLow)
    base_high = at(0x04, DecoderBaseHigh)
    size_low = at(0x08, DecoderSizeLow)
    size_high = at(0x0C, DecoderSizeHigh)
    control = at(0x10, DecoderControl)


class DeviceDecoder(Decoder, size=DECODER_STRIDE, spec="CXL 3.1 §8.2.4.20"):
    """One HDM decoder of a device."""

    dpa_skip_low = at(0x14, DpaSkipLow)
    dpa_skip_high = at(0x18, DpaSkipHigh)


class PortDecoder(Decoder, size=DECODER_STRIDE, spec="CXL 3.1 §8.2.4.20"):
    """One HDM decoder of a host bridge or of a switch's upstream port."""

    target_list_low = at(0x14, TargetListLow)
    target_list_high = at(0x18, TargetListHigh)
