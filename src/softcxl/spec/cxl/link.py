"""CXL Link capability: the CXL.cache and CXL.mem link layer of a port.

The structure of CXL 3.1 is 50h bytes long. Its last 18h bytes, from 38h on, are not declared here: no second source
names them, and they read zero.
"""

from __future__ import annotations

import enum

from softcxl.wire import RO, RW, RWS, Block, Register, at, bit, bits

LINK_VERSION = 2
"""Version of the Link capability."""


class LinkLayerCapability(Register, width=64, spec="CXL 3.1 §8.2.4.19.1"):
    """CXL Link Layer Capability Register."""

    version_supported = bits(3, 0, RWS, "of CXL.cache and CXL.mem; 1: CXL 1.1, 2: CXL 2.0")
    version_received = bits(7, 4, RO, "from the other side's INIT.Param flit")
    llr_wrap_value_supported = bits(15, 8, RWS, "wrap of the link layer's retry buffer")
    llr_wrap_value_received = bits(23, 16, RO)
    retries_received = bits(28, 24, RO, "Num_Retry, from the last RETRY.Req")
    phy_reinits_received = bits(33, 29, RO, "Num_Phy_Reinit, from the last RETRY.Req")
    write_pointer_received = bits(41, 34, RO, "Wr_Ptr, from the last RETRY.Ack")
    echo_sequence_received = bits(49, 42, RO, "Echo Eseq, from the last RETRY.Ack")
    free_buffers_received = bits(57, 50, RO, "NumFreeBuf, from the last RETRY.Ack")
    no_reset_support = bit(58, RO, "LL_Reset of Link Layer Control does not work")


class LinkInitState(enum.IntEnum):
    """How far the link layer's initialization has come (CXL 3.1 §8.2.4.19.2)."""

    NOT_READY = 0
    PARAMETER_EXCHANGE = 1
    CREDIT_RETURN_STALL = 2
    DONE = 3


class LinkLayerControlStatus(Register, width=64, spec="CXL 3.1 §8.2.4.19.2"):
    """CXL Link Layer Control and Status Register."""

    reset_link = bit(0, RW, "LL_Reset: initialize the link layer anew; all in flight is lost")
    init_stall = bit(1, RWS, "LL_Init_Stall: stop before parameters are exchanged")
    credit_stall = bit(2, RWS, "LL_Crd_Stall: stop before credits are returned")
    init_state = bits(4, 3, RO, LinkInitState)
    retry_buffer_consumed = bits(12, 5, RO, "in entries")


class LinkLayerRxCreditControl(Register, width=64, spec="CXL 3.1 §8.2.4.19.3"):
    """CXL Link Layer Rx Credit Control Register: credits to advertise when the link is initialized."""

    cache_request = bits(9, 0, RWS)
    cache_response = bits(19, 10, RWS)
    cache_data = bits(29, 20, RWS)
    mem_request_response = bits(39, 30, RWS)
    mem_data = bits(49, 40, RWS)
    back_invalidate = bits(59, 50, RWS)


class LinkLayerRxCreditReturnStatus(Register, width=64, spec="CXL 3.1 §8.2.4.19.4"):
    """CXL Link Layer Rx Credit Return Status Register: credits that have gathered and are still to be returned."""

    cache_request = bits(9, 0, RO)
    cache_response = bits(19, 10, RO)
    cache_data = bits(29, 20, RO)
    mem_request_response = bits(39, 30, RO)
    mem_data = bits(49, 40, RO)
    back_invalidate = bits(59, 50, RO)


class LinkLayerTxCreditStatus(Register, width=64, spec="CXL 3.1 §8.2.4.19.5"):
    """CXL Link Layer Tx Credit Status Register: credits that are there for sending."""

    cache_request = bits(9, 0, RO)
    cache_response = bits(19, 10, RO)
    cache_data = bits(29, 20, RO)
    mem_request_response = bits(39, 30, RO)
    mem_data = bits(49, 40, RO)
    back_invalidate = bits(59, 50, RO)


class LinkLayerAckTimerControl(Register, width=64, spec="CXL 3.1 §8.2.4.19.6"):
    """CXL Link Layer Ack Timer Control Register."""

    ack_force_threshold = bits(
        7, 0, RWS, "flits that may be unacknowledged before an acknowledgement is forced"
    )
    ack_flush_retimer = bits(17, 8, RWS, "flit times without traffic before one is")


class LinkLayerDefeature(Register, width=64, spec="CXL 3.1 §8.2.4.19.7"):
    """CXL Link Layer Defeature Register."""

    multi_data_header_disable = bit(0, RWS, "MDH_Disable: send no header that announces several data slots")


class Link(Block, size=0x50, spec="CXL 3.1 §8.2.4.19"):
    """CXL Link Capability Structure."""

    capability = at(0x00, LinkLayerCapability)
    control_status = at(0x08, LinkLayerControlStatus)
    rx_credit_control = at(0x10, LinkLayerRxCreditControl)
    rx_credit_return_status = at(0x18, LinkLayerRxCreditReturnStatus)
    tx_credit_status = at(0x20, LinkLayerTxCreditStatus)
    ack_timer_control = at(0x28, LinkLayerAckTimerControl)
    defeature = at(0x30, LinkLayerDefeature)
