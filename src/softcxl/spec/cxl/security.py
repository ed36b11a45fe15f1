"""Security capabilities of a component: whom a port trusts, and link encryption (IDE)."""

from __future__ import annotations

import enum

from softcxl.wire import RO, RW, RW1CS, Block, HwInit, Register, at, bit, bits


class DeviceTrustLevel(enum.IntEnum):
    """What a device may reach (CXL 3.1 §8.2.4.18.1)."""

    TRUSTED = 0
    TRUSTED_FOR_OWN_MEMORY = 1
    UNTRUSTED = 2


class SecurityPolicy(Register, width=32, spec="CXL 3.1 §8.2.4.18.1"):
    """CXL Security Policy Register, of a CXL 1.1 downstream port."""

    device_trust_level = bits(1, 0, RW, DeviceTrustLevel)


class Security(Block, spec="CXL 3.1 §8.2.4.18"):
    """CXL Security Capability Structure."""

    policy = at(0x00, SecurityPolicy)


# -- extended security -------------------------------------------------------------------------------------

EXTENDED_SECURITY_VERSION = 2
"""Version of the Extended Security capability in CXL 3.1."""

ROOT_PORT_SECURITY_OFFSET = 0x04
"""Where the first `RootPortSecurity` is; the others follow, 8 bytes each (CXL 3.1 §8.2.4.21)."""


class ExtendedSecurityEntryCount(Register, width=32, spec="CXL 3.1 §8.2.4.21.1"):
    """CXL Extended Security Structure Entry Count."""

    root_ports = bits(7, 0, HwInit, "entries that follow, one for each root port")


class RootPortSecurityPolicy(Register, width=32, spec="CXL 3.1 §8.2.4.21.2"):
    """Root Port n Security Policy Register."""

    device_trust_level = bits(1, 0, RW, DeviceTrustLevel)


class RootPortId(Register, width=32, spec="CXL 3.1 §8.2.4.21.3"):
    """Root Port n ID Register."""

    port = bits(7, 0, HwInit, "the Port Number in the root port's Link Capabilities")


class ExtendedSecurity(Block, spec="CXL 3.1 §8.2.4.21"):
    """CXL Extended Security Capability Structure, of a root complex; `RootPortSecurity` entries follow."""

    entry_count = at(0x00, ExtendedSecurityEntryCount)


class RootPortSecurity(Block, size=0x08, spec="CXL 3.1 §8.2.4.21"):
    """One root port's entry of the CXL Extended Security Capability Structure."""

    policy = at(0x00, RootPortSecurityPolicy)
    port_id = at(0x04, RootPortId)


# -- link encryption ---------------------------------------------------------------------------------------

IDE_VERSION = 2
"""Version of the IDE capability in CXL 3.1."""


class IdeCapability(Register, width=32, spec="CXL 3.1 §8.2.4.22.1"):
    """CXL IDE Capability Register."""

    ide_capable = bit(0, HwInit)
    skid_mode_supported = bit(1, HwInit, "data may be used before their integrity is known")
    containment_mode_supported = bit(2, HwInit, "data are held until their integrity is known")
    algorithms = bits(21, 17, HwInit, "0: 256-bit AES-GCM with 96-bit MACs")
    stop_capable = bit(22, HwInit, "takes IDE.Stop")
    latency_optimized_capable = bit(23, HwInit, "for 256-byte flits")


class IdeControl(Register, width=32, spec="CXL 3.1 §8.2.4.22.2"):
    """CXL IDE Control Register."""

    pcrc_disable = bit(0, RW, "leave the plaintext's CRC out of the MAC")
    stop_enable = bit(1, RW, "send IDE.Stop")


class IdeStatus(Register, width=32, spec="CXL 3.1 §8.2.4.22.3"):
    """CXL IDE Status Register."""

    rx_status = bits(3, 0, RO, "1: active, containment mode; 2: active, skid mode; 4: insecure")
    tx_status = bits(7, 4, RO, "likewise")


class IdeErrorStatus(Register, width=32, spec="CXL 3.1 §8.2.4.22.4"):
    """CXL IDE Error Status Register."""

    rx_error = bits(3, 0, RW1CS, "which error the receiver has found; 0: none")
    tx_error = bits(7, 4, RW1CS, "which error the transmitter has found; 0: none")
    unexpected_stop_received = bit(8, RW1CS)


class KeyRefreshTimeCapability(Register, width=32, spec="CXL 3.1 §8.2.4.22.5"):
    """Key Refresh Time Capability, for 68-byte flits."""

    rx_minimum = bits(31, 0, HwInit, "flits that the other side must hold back after IDE.Start")


class TruncationTransmitDelayCapability(Register, width=32, spec="CXL 3.1 §8.2.4.22.6"):
    """Truncation Transmit Delay Capability."""

    rx_minimum = bits(
        7, 0, HwInit, "flits that the other side must hold back after a truncated MAC; 68-byte flits"
    )
    rx_minimum_256b = bits(15, 8, HwInit, "likewise, for 256-byte flits")


class KeyRefreshTimeControl(Register, width=32, spec="CXL 3.1 §8.2.4.22.7"):
    """Key Refresh Time Control."""

    tx_time = bits(31, 0, RW, "flits to hold back after IDE.Start")


class TruncationTransmitDelayControl(Register, width=32, spec="CXL 3.1 §8.2.4.22.8"):
    """Truncation Transmit Delay Control."""

    tx_delay = bits(7, 0, RW, "flits to hold back after a truncated MAC")


class KeyRefreshTimeCapability2(Register, width=32, spec="CXL 3.1 §8.2.4.22.9"):
    """Key Refresh Time Capability 2, for 256-byte flits."""

    rx_minimum = bits(31, 0, HwInit, "flits that the other side must hold back after IDE.Start")


class Ide(Block, size=0x24, spec="CXL 3.1 §8.2.4.22"):
    """CXL IDE Capability Structure."""

    capability = at(0x00, IdeCapability)
    control = at(0x04, IdeControl)
    status = at(0x08, IdeStatus)
    error_status = at(0x0C, IdeErrorStatus)
    key_refresh_time_capability = at(0x10, KeyRefreshTimeCapability)
    truncation_transmit_delay_capability = at(0x14, TruncationTransmitDelayCapability)
    key_refresh_time_control = at(0x18, KeyRefreshTimeControl)
    truncation_transmit_delay_control = at(0x1C, TruncationTransmitDelayControl)
    key_refresh_time_capability2 = at(0x20, KeyRefreshTimeCapability2)
