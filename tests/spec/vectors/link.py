"""Link, security, IDE and snoop filter of a component.

Offsets and fields of link and security: EDK2 `MdePkg/Include/IndustryStandard/Cxl11.h` (CXL 1.1, so without
back-invalidate); these, and what software may write: opencis-core `cxl_link_capability.py`. IDE: tee-io-validator
`cxl.h`. Sizes and versions: QEMU `include/hw/cxl/cxl_component.h`. Of extended security and the snoop filter no
project names a register.
"""

from __future__ import annotations

from softcxl.spec.cxl import component, link, security
from softcxl.spec.cxl.component import SnoopFilter
from softcxl.spec.cxl.link import Link
from softcxl.spec.cxl.security import ExtendedSecurity, Ide, RootPortSecurity, Security
from softcxl.wire import Register
from tests.spec.vectors import Mask, Place

PLACES = [
    Place("EDK2 LinkLayerCapability", Link.capability, 0x00, 64),
    Place("EDK2 LinkLayerControlStatus", Link.control_status, 0x08, 64),
    Place("EDK2 LinkLayerRxCreditControl", Link.rx_credit_control, 0x10, 64),
    Place("EDK2 LinkLayerRxCreditReturnStatus", Link.rx_credit_return_status, 0x18, 64),
    Place("EDK2 LinkLayerTxCreditStatus", Link.tx_credit_status, 0x20, 64),
    Place("EDK2 LinkLayerAckTimerControl", Link.ack_timer_control, 0x28, 64),
    Place("EDK2 LinkLayerDefeature", Link.defeature, 0x30, 64),
    Place("EDK2 SecurityPolicy", Security.policy, 0x0, 32),
    Place("tee-io-validator CXL_IDE_CAPABILITY_STRUCT.cap", Ide.capability, 0x00, 32),
    Place("tee-io-validator ..control", Ide.control, 0x04, 32),
    Place("tee-io-validator ..status", Ide.status, 0x08, 32),
    Place("tee-io-validator ..error_status", Ide.error_status, 0x0C, 32),
    Place("tee-io-validator ..key_refresh_time_capability", Ide.key_refresh_time_capability, 0x10, 32),
    Place("tee-io-validator ..truncation_..capability", Ide.truncation_transmit_delay_capability, 0x14, 32),
    Place("tee-io-validator ..key_refresh_time_control", Ide.key_refresh_time_control, 0x18, 32),
    Place("tee-io-validator ..truncation_..control", Ide.truncation_transmit_delay_control, 0x1C, 32),
    Place("tee-io-validator ..key_refresh_time_capability2", Ide.key_refresh_time_capability2, 0x20, 32),
]

SIZES = [
    ("EDK2 CXL_1_1_SECURITY_CAPABILITY_STRUCTURE", Security, 0x4),
    ("QEMU CXL_LINK_REGISTERS_SIZE", Link, 0x50),
    ("QEMU CXL_EXTSEC_REGISTERS_SIZE: 4, and", ExtendedSecurity, 4),
    ("QEMU CXL_EXTSEC_REGISTERS_SIZE: 8 an entry", RootPortSecurity, 8),
    ("QEMU CXL_IDE_REGISTERS_SIZE", Ide, 0x24),
    ("QEMU CXL_SNOOP_REGISTERS_SIZE", SnoopFilter, 0x8),
]

_link, _linkctl, _ack = link.LinkLayerCapability, link.LinkLayerControlStatus, link.LinkLayerAckTimerControl
_ide, _idests, _ideerr = security.IdeCapability, security.IdeStatus, security.IdeErrorStatus
_delay = security.TruncationTransmitDelayCapability
_CREDITS = (
    link.LinkLayerRxCreditControl,
    link.LinkLayerRxCreditReturnStatus,
    link.LinkLayerTxCreditStatus,
)

MASKS = [
    Mask("EDK2 CxlLinkVersionSupported", _link.version_supported, 0xF),
    Mask("EDK2 CxlLinkVersionReceived", _link.version_received, 0xF0),
    Mask("EDK2 LlrWrapValueSupported", _link.llr_wrap_value_supported, 0xFF00),
    Mask("EDK2 LlrWrapValueReceived", _link.llr_wrap_value_received, 0xFF_0000),
    Mask("EDK2 NumRetryReceived", _link.retries_received, 0x1F00_0000),
    Mask("EDK2 NumPhyReinitReceived", _link.phy_reinits_received, 0x3_E000_0000),
    Mask("EDK2 WrPtrReceived", _link.write_pointer_received, 0x3FC_0000_0000),
    Mask("EDK2 EchoEseqReceived", _link.echo_sequence_received, 0x3_FC00_0000_0000),
    Mask("EDK2 NumFreeBufReceived", _link.free_buffers_received, 0x3FC_0000_0000_0000),
    Mask("opencis-core no_ll_reset_support", _link.no_reset_support, 1 << 58),
    Mask("EDK2 LlReset", _linkctl.reset_link, 0x1),
    Mask("EDK2 LlInitStall", _linkctl.init_stall, 0x2),
    Mask("EDK2 LlCrdStall", _linkctl.credit_stall, 0x4),
    Mask("EDK2 InitState", _linkctl.init_state, 0x18),
    Mask("EDK2 LlRetryBufferConsumed", _linkctl.retry_buffer_consumed, 0x1FE0),
    Mask("EDK2 AckForceThreshold", _ack.ack_force_threshold, 0xFF),
    Mask("EDK2 AckFLushRetimer", _ack.ack_flush_retimer, 0x3_FF00),
    Mask("EDK2 MdhDisable", link.LinkLayerDefeature.multi_data_header_disable, 0x1),
    *(
        mask
        for register in _CREDITS
        for mask in (
            Mask("EDK2 CacheReqCredits", register.cache_request, 0x3FF),
            Mask("EDK2 CacheRspCredits", register.cache_response, 0xF_FC00),
            Mask("EDK2 CacheDataCredits", register.cache_data, 0x3FF0_0000),
            Mask("EDK2 MemReqRspCredits", register.mem_request_response, 0xFF_C000_0000),
            Mask("EDK2 MemDataCredits", register.mem_data, 0x3_FF00_0000_0000),
            Mask("opencis-core bi_credits", register.back_invalidate, 0xFFC_0000_0000_0000),
        )
    ),
    Mask("EDK2 DeviceTrustLevel", security.SecurityPolicy.device_trust_level, 0x3),
    Mask("tee-io-validator cxl_ide_capable", _ide.ide_capable, 0x1),
    Mask("tee-io-validator CXL_IDE_MODE_SKID_MASK", _ide.skid_mode_supported, 0x2),
    Mask("tee-io-validator CXL_IDE_MODE_CONTAINMENT_MASK", _ide.containment_mode_supported, 0x4),
    Mask("tee-io-validator supported_algo", _ide.algorithms, 0x3E_0000),
    Mask("tee-io-validator ide_stop_capable", _ide.stop_capable, 0x40_0000),
    Mask("tee-io-validator lopt_ide_capable", _ide.latency_optimized_capable, 0x80_0000),
    Mask("tee-io-validator pcrc_disable", security.IdeControl.pcrc_disable, 0x1),
    Mask("tee-io-validator ide_stop_enable", security.IdeControl.stop_enable, 0x2),
    Mask("tee-io-validator rx_ide_status", _idests.rx_status, 0xF),
    Mask("tee-io-validator tx_ide_status", _idests.tx_status, 0xF0),
    Mask("tee-io-validator rx_error_status", _ideerr.rx_error, 0xF),
    Mask("tee-io-validator tx_error_status", _ideerr.tx_error, 0xF0),
    Mask("tee-io-validator unexpected_ide_stop_received", _ideerr.unexpected_stop_received, 0x100),
    Mask("tee-io-validator rx_min_truncation_transmit_delay", _delay.rx_minimum, 0xFF),
    Mask("tee-io-validator rx_min_truncation_transmit_delay2", _delay.rx_minimum_256b, 0xFF00),
]

# (source, register, bits that software can store, reset value: neither source has one)
WRITES: list[tuple[str, type[Register], int | None, int]] = [
    ("opencis-core LinkLayerRxCreditControl", link.LinkLayerRxCreditControl, (1 << 60) - 1, 0),
    ("opencis-core LinkLayerControlAndStatus", link.LinkLayerControlStatus, 0x7, 0),
    ("opencis-core LinkLayerAckTimerControl", link.LinkLayerAckTimerControl, 0x3_FFFF, 0),
    ("opencis-core LinkLayerDefeature", link.LinkLayerDefeature, 0x1, 0),
    ("opencis-core LinkLayerCapability", link.LinkLayerCapability, 0xFF0F, 0),
]

# (source, member, value)
NUMBERS = [
    ("CXL_CACHE_MEM_CAPABILITY_ID_IDE of EDK2", component.ComponentCapabilityId.IDE, 7),
    ("QEMU CXL_LINK_CAPABILITY_VERSION", link.LINK_VERSION, 2),
    ("QEMU CXL_EXTSEC_CAP_VERSION", security.EXTENDED_SECURITY_VERSION, 2),
    ("QEMU CXL_EXTSEC_REGISTERS_SIZE less 8 an entry", security.ROOT_PORT_SECURITY_OFFSET, 4),
    ("QEMU CXL_IDE_CAP_VERSION", security.IDE_VERSION, 2),
    ("QEMU CXL_SNOOP_CAP_VERSION", component.SNOOP_FILTER_VERSION, 1),
    ("opencis-core INIT_STATE NOT_RDY_FOR_INIT", link.LinkInitState.NOT_READY, 0),
    ("opencis-core INIT_STATE PARAM_EX", link.LinkInitState.PARAMETER_EXCHANGE, 1),
    ("opencis-core INIT_STATE CRD_RETURN_STALL", link.LinkInitState.CREDIT_RETURN_STALL, 2),
    ("opencis-core INIT_STATE INIT_DONE", link.LinkInitState.DONE, 3),
]
