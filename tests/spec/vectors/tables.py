"""CDAT, CEDT and HMAT, by Linux `include/acpi/actbl1.h` and QEMU `cxl_cdat.h`, `hw/acpi/cxl.c`; SRAT, by Linux
`include/acpi/actbl3.h`; data objects, by Linux `pci_regs.h` and QEMU `pcie_doe.h`."""

from __future__ import annotations

from uuid import UUID

from softcxl.spec.acpi import cedt, hmat, mcfg, sdt, srat
from softcxl.spec.cxl import cdat, label
from softcxl.spec.pci import doe
from tests.spec.vectors import Payload, c

# struct acpi_table_header
_SDT = c("4sIBB6s8sI4sI", b"CEDT", 0x01020304, 5, 6, b"BOCHS ", b"BXPC    ", 0x0708090A, b"BXPC", 0x0B0C0D0E)
_SDT_FIELDS = {
    "signature": "CEDT",
    "length": 0x01020304,
    "revision": 5,
    "checksum": 6,
    "oem_id": "BOCHS ",
    "oem_table_id": "BXPC    ",
    "oem_revision": 0x0708090A,
    "creator_id": "BXPC",
    "creator_revision": 0x0B0C0D0E,
}

PAYLOADS = [
    # CDAT
    Payload(
        "acpi_table_cdat",
        cdat.CdatHeader,
        c("IBB6xI", 0x01020304, 5, 6, 0x0708090A),
        {"length": 0x01020304, "revision": 5, "checksum": 6, "sequence": 0x0708090A},
    ),
    Payload("acpi_cdat_header", cdat.CdatEntryHeader, c("BxH", 5, 0x18), {"type": 5, "length": 0x18}),
    Payload(
        "acpi_cdat_header, acpi_cdat_dsmas",
        cdat.Dsmas,
        c("BxHBB2xQQ", 0, 24, 7, 0x4C, 0x1000_0000, 0x2000_0000),
        {
            "type": cdat.CdatType.DSMAS,
            "length": 24,
            "handle": 7,
            "flags.non_volatile": True,  # ACPI_CDAT_DSMAS_NON_VOLATILE 1 << 2
            "flags.shareable": True,  # ACPI_CDAT_DSMAS_SHAREABLE 1 << 3
            "flags.hardware_managed_coherency": False,  # QEMU CDAT_DSMAS_FLAG_HW_COHERENT 1 << 4
            "flags.dynamic_capacity": False,  # QEMU CDAT_DSMAS_FLAG_DYNAMIC_CAP 1 << 5
            "flags.read_only": True,  # ACPI_CDAT_DSMAS_READ_ONLY 1 << 6
            "dpa_base": 0x1000_0000,
            "dpa_length": 0x2000_0000,
        },
    ),
    Payload(
        "QEMU ct3_build_cdat_entries_for_mr: dslbis1, write latency 250 ns",
        cdat.Dslbis,
        c("BxHBBBxQHHH2x", 1, 24, 7, 0, 2, 10000, 25, 26, 27),
        {
            "type": cdat.CdatType.DSLBIS,
            "length": 24,
            "handle": 7,
            "flags": 0,
            "data_type": cdat.LatencyBandwidthType.WRITE_LATENCY,
            "entry_base_unit": 10000,
            "entry0": 25,
            "entry1": 26,
            "entry2": 27,
        },
    ),
    Payload(
        "acpi_cdat_header, acpi_cdat_dsmscis",
        cdat.Dsmscis,
        c("BxHB3xQI", 2, 20, 7, 0x0102_0304_0506_0708, 0x0040_1211),
        {
            "type": cdat.CdatType.DSMSCIS,
            "length": 20,
            "handle": 7,
            "size": 0x0102_0304_0506_0708,
            "attributes.total_levels": 1,  # ACPI_HMAT_TOTAL_CACHE_LEVEL 0000000Fh
            "attributes.level": 1,  # ACPI_HMAT_CACHE_LEVEL 000000F0h
            "attributes.associativity": 2,  # ACPI_HMAT_CACHE_ASSOCIATIVITY 00000F00h
            "attributes.write_policy": 1,  # ACPI_HMAT_WRITE_POLICY 0000F000h
            "attributes.line_size": 64,  # ACPI_HMAT_CACHE_LINE_SIZE FFFF0000h
        },
    ),
    Payload(
        "acpi_cdat_header, acpi_cdat_dsis",
        cdat.Dsis,
        c("BxHBB2x", 3, 8, 1, 7),
        {"type": cdat.CdatType.DSIS, "length": 8, "flags.memory_attached": True, "handle": 7},
    ),
    Payload(
        "acpi_cdat_header, acpi_cdat_dsemts",
        cdat.Dsemts,
        c("BxHBB2xQQ", 4, 24, 7, 1, 0x1000_0000, 0x2000_0000),
        {
            "type": cdat.CdatType.DSEMTS,
            "length": 24,
            "handle": 7,
            "memory_type": cdat.EfiMemoryType.SPECIFIC_PURPOSE,
            "dpa_offset": 0x1000_0000,
            "dpa_length": 0x2000_0000,
        },
    ),
    Payload(
        "acpi_cdat_sslbe",
        cdat.Sslbe,
        c("HHH2x", 0x0100, 2, 3),
        {"port_x": cdat.SSLBIS_UPSTREAM_PORT, "port_y": 2, "value": 3},
    ),
    Payload(
        "acpi_cdat_header, acpi_cdat_sslbis, acpi_cdat_sslbe",
        cdat.Sslbis,
        c("BxHB3xQ", 5, 32, 4, 1000) + c("HHH2x", 0x0100, 0, 16) + c("HHH2x", 0xFFFF, 1, 8),
        {
            "type": cdat.CdatType.SSLBIS,
            "length": 32,
            "data_type": cdat.LatencyBandwidthType.READ_BANDWIDTH,
            "entry_base_unit": 1000,
            "entries.0.port_x": 0x0100,
            "entries.0.value": 16,
            "entries.1.port_x": cdat.SSLBIS_ANY_PORT,
            "entries.1.port_y": 1,
        },
    ),
    Payload(
        "QEMU CDATReq, after its header",
        cdat.ReadEntryRequest,
        c("BBH", 0, 0, 0x0102),
        {"request_code": 0, "table_type": 0, "entry_handle": 0x0102},
    ),
    Payload(
        "QEMU CDATRsp, after its header",
        cdat.ReadEntryResponse,
        c("BBH", 0, 0, 0xFFFF) + b"entry...",
        {"response_code": 0, "table_type": 0, "entry_handle": cdat.LAST_ENTRY, "entry": b"entry..."},
    ),
    # Data objects
    Payload(
        "QEMU DOEHeader",
        doe.DataObjectHeader,
        c("HBxI", 0x1E98, 2, 3),
        {"vendor_id": 0x1E98, "object_type": cdat.DATA_OBJECT_TYPE_CDAT, "length": 3},
    ),
    Payload(
        "PCI_DOE_DATA_OBJECT_DISC_REQ_3_*",
        doe.DiscoveryRequest,
        c("I", 0x12 | 0x34 << 8),
        {"index": 0x12, "version": 0x34},
    ),
    Payload(
        "PCI_DOE_DATA_OBJECT_DISC_RSP_3_*",
        doe.DiscoveryResponse,
        c("I", 0x1E98 | 0x02 << 16 | 0x56 << 24),
        {"vendor_id": 0x1E98, "object_type": 2, "next_index": 0x56},
    ),
    # ACPI
    Payload("acpi_table_header", sdt.SdtHeader, _SDT, _SDT_FIELDS),
    Payload(
        "acpi_table_cedt",
        cedt.Cedt,
        _SDT + b"structures",
        {f"header.{name}": value for name, value in _SDT_FIELDS.items()} | {"structures": b"structures"},
    ),
    Payload(
        "acpi_cedt_header",
        cedt.CedtStructureHeader,
        c("BxH", 3, 0x11),
        {"type": cedt.CedtType.RDPAS, "record_length": 0x11},
    ),
    Payload(
        "acpi_cedt_chbs; QEMU cedt_build_chbs",
        cedt.Chbs,
        c("BxHII4xQQ", 0, 32, 12, 1, 0x3_C000_0000, 0x10000),
        {
            "type": cedt.CedtType.CHBS,
            "record_length": 32,
            "uid": 12,
            "cxl_version": cedt.CxlVersion.CXL_2_0,
            "base": 0x3_C000_0000,
            "length": cedt.CHBS_LENGTH_COMPONENT,
        },
    ),
    Payload(
        "acpi_cedt_cfmws; QEMU cedt_build_cfmws",
        cedt.Cfmws,
        c("BxH4xQQBB2xIHHII", 1, 36 + 8, 0x1_0000_0000, 0x4000_0000, 1, 1, 4, 0x2D, 42, 12, 52),
        {
            "type": cedt.CedtType.CFMWS,
            "record_length": 44,
            "base_hpa": 0x1_0000_0000,
            "window_size": 0x4000_0000,
            "interleave_ways": 1,
            "interleave_arithmetic": cedt.InterleaveArithmetic.XOR,
            "granularity": 4,
            "restrictions.device_coherent": True,  # ACPI_CEDT_CFMWS_RESTRICT_DEVMEM 1
            "restrictions.host_only": False,  # ACPI_CEDT_CFMWS_RESTRICT_HOSTONLYMEM 1 << 1
            "restrictions.volatile": True,  # ACPI_CEDT_CFMWS_RESTRICT_VOLATILE 1 << 2
            "restrictions.persistent": True,  # ACPI_CEDT_CFMWS_RESTRICT_PMEM 1 << 3
            "restrictions.fixed": False,  # ACPI_CEDT_CFMWS_RESTRICT_FIXED 1 << 4
            "restrictions.back_invalidate": True,  # ACPI_CEDT_CFMWS_RESTRICT_BI 1 << 5
            "qtg_id": 42,
            "targets": [12, 52],
        },
    ),
    Payload(
        "acpi_cedt_cxims; Linux cxl_test mock_cedt.cxims0",
        cedt.Cxims,
        c("BxH2xBBQQ", 2, 8 + 16, 0, 2, 0x404100, 0x808200),
        {
            "type": cedt.CedtType.CXIMS,
            "record_length": 24,
            "granularity": 0,
            "map_count": 2,
            "maps": [0x404100, 0x808200],
        },
    ),
    Payload(
        "acpi_cedt_rdpas",
        cedt.Rdpas,
        c("BxHHHBQ", 3, 17, 0x0102, 0x12 << 8 | 0x03 << 3 | 5, 1, 0x1_0000_0000),
        {
            "type": cedt.CedtType.RDPAS,
            "record_length": 17,
            "segment": 0x0102,
            "bdf.bus": 0x12,  # ACPI_CEDT_RDPAS_BUS_MASK FF00h
            "bdf.device": 3,  # ACPI_CEDT_RDPAS_DEVICE_MASK 00F8h
            "bdf.function": 5,  # ACPI_CEDT_RDPAS_FUNCTION_MASK 0007h
            "protocol": cedt.RdpasProtocol.CACHE_MEM,
            "base": 0x1_0000_0000,
        },
    ),
    # SRAT
    Payload(
        "acpi_table_srat",
        srat.Srat,
        _SDT + c("I8x", 1) + b"structures",
        {f"header.{name}": value for name, value in _SDT_FIELDS.items()}
        | {"table_revision": 1, "structures": b"structures"},
    ),
    Payload(
        "acpi_srat_cpu_affinity",
        srat.ProcessorAffinity,
        c("BBBBIB", 0, 16, 0x44, 7, 1, 8) + bytes((0x33, 0x22, 0x11)) + c("I", 9),
        {
            "type": srat.SratType.PROCESSOR,  # ACPI_SRAT_TYPE_CPU_AFFINITY 0
            "length": 16,
            "domain_low": 0x44,
            "apic_id": 7,
            "flags.enabled": True,  # ACPI_SRAT_CPU_USE_AFFINITY 1
            "sapic_eid": 8,
            "domain_high": 0x112233,
            "clock_domain": 9,
        },
    ),
    Payload(
        "acpi_srat_mem_affinity",
        srat.MemoryAffinity,
        c("BBI2xQQ4xI8x", 1, 40, 7, 0x1_0000_0000, 0x4000_0000, 0b101),
        {
            "type": srat.SratType.MEMORY,  # ACPI_SRAT_TYPE_MEMORY_AFFINITY 1
            "length": 40,
            "domain": 7,
            "base": 0x1_0000_0000,
            "size": 0x4000_0000,
            "flags.enabled": True,  # ACPI_SRAT_MEM_ENABLED 1
            "flags.hot_pluggable": False,  # ACPI_SRAT_MEM_HOT_PLUGGABLE 1 << 1
            "flags.non_volatile": True,  # ACPI_SRAT_MEM_NON_VOLATILE 1 << 2
        },
    ),
    Payload(
        "acpi_srat_generic_affinity; Linux hmat.c acpi_find_genport_target: the UID is 8 bytes into the handle",
        srat.GenericPortAffinity,
        c("BBxBI8sI4xI4x", 6, 32, 1, 100, b"ACPI0016", 12, 1),
        {
            "type": srat.SratType.GENERIC_PORT,  # ACPI_SRAT_TYPE_GENERIC_PORT_AFFINITY 6
            "length": 32,
            "handle_type": 1,
            "domain": 100,
            "hid": "ACPI0016",
            "uid": 12,
            "flags.enabled": True,  # ACPI_SRAT_GENERIC_AFFINITY_ENABLED 1
        },
    ),
    # HMAT
    Payload(
        "acpi_table_hmat",
        hmat.Hmat,
        _SDT + c("4x") + b"structures",
        {f"header.{name}": value for name, value in _SDT_FIELDS.items()} | {"structures": b"structures"},
    ),
    Payload(
        "acpi_hmat_structure, acpi_hmat_locality; Linux hmat.c hmat_initiator_perf: lists, then rows of entries",
        hmat.LatencyAndBandwidth,
        c("H2xIBBBxII4xQ", 1, 32 + 12 + 4, 2, 5, 6, 1, 2, 1000) + c("III", 7, 8, 9) + c("HH", 10, 11),
        {
            "type": hmat.HmatType.LATENCY_AND_BANDWIDTH,  # ACPI_HMAT_TYPE_LOCALITY 1
            "length": 48,
            "flags": 2,
            "data_type": hmat.HmatDataType.WRITE_BANDWIDTH,  # ACPI_HMAT_WRITE_BANDWIDTH 5
            "min_transfer_size": 6,
            "initiator_count": 1,
            "target_count": 2,
            "entry_base_unit": 1000,
            "initiators": [7],
            "targets": [8, 9],
            "entries": [10, 11],
        },
    ),
    # MCFG: struct acpi_mcfg_allocation, struct acpi_table_mcfg (include/acpi/actbl2.h)
    Payload(
        "acpi_mcfg_allocation",
        mcfg.McfgAllocation,
        c("QHBBI", 0x0102_0304_0506_0708, 0x090A, 0x0B, 0x0C, 0),
        {"base": 0x0102_0304_0506_0708, "segment": 0x090A, "start_bus": 0x0B, "end_bus": 0x0C},
    ),
    Payload(
        "acpi_table_mcfg",
        mcfg.Mcfg,
        _SDT + bytes(8) + c("QHBBI", 0xB000_0000, 0, 0, 255, 0),
        {
            **{f"header.{name}": value for name, value in _SDT_FIELDS.items()},
            "allocations": [mcfg.McfgAllocation(base=0xB000_0000, end_bus=255)],
        },
    ),
    # labels: drivers/nvdimm/label.h
    Payload(
        "nd_namespace_index",
        label.LabelIndex,
        c(
            "16s3xBIQQQQIHHQ4s",
            b"NAMESPACE_INDEX\0",
            1,
            3,
            0x100,
            0x200,
            0x300,
            0x400,
            5,
            6,
            7,
            8,
            b"\xff\x01\0\0",
        ),
        {
            "signature": b"NAMESPACE_INDEX\0",
            "label_size": 1,
            "sequence": 3,
            "offset": 0x100,
            "size": 0x200,
            "other_offset": 0x300,
            "label_offset": 0x400,
            "slot_count": 5,
            "major": 6,
            "minor": 7,
            "checksum": 8,
            "free": b"\xff\x01\0\0",
        },
    ),
    Payload(
        "cxl_region_label",
        label.RegionLabel,
        c(
            "16s16sIHHQQQIII172xQ",
            *(bytes.fromhex("529d7c61da0747c4a93fecdf2c06f444"), bytes(range(16))),
            *(8, 2, 1, 3 << 28, 4 << 28, 5 << 28, 6, 7, 8, 9),
        ),
        {
            "type": UUID("529d7c61-da07-47c4-a93f-ecdf2c06f444"),  # CXL_REGION_UUID
            "uuid": UUID("00010203-0405-0607-0809-0a0b0c0d0e0f"),
            "flags.updating": True,  # NSLABEL_FLAG_UPDATING 0x8
            "label_count": 2,
            "position": 1,
            "dpa": 3 << 28,
            "raw_size": 4 << 28,
            "hpa": 5 << 28,
            "slot": 6,
            "interleave_granularity": 7,
            "alignment": 8,
            "checksum": 9,
        },
    ),
    Payload(
        "nvdimm_cxl_label",
        label.NamespaceLabel,
        c(
            "16s16s64sIHHQQII16s16sH86xQ",
            *(
                bytes.fromhex("68bb2c0a5a7749379f853caf41a0f93c"),
                bytes(range(16)),
                b"name",
                0,
                2,
                1,
                3,
                4,
                5,
                6,
            ),
            *(bytes(16), bytes(range(16)), 512, 9),
        ),
        {
            "type": UUID("68bb2c0a-5a77-4937-9f85-3caf41a0f93c"),  # CXL_NAMESPACE_UUID
            "uuid": UUID("00010203-0405-0607-0809-0a0b0c0d0e0f"),
            "name": "name",
            "flags.updating": False,
            "range_count": 2,
            "position": 1,
            "dpa": 3,
            "raw_size": 4,
            "slot": 5,
            "alignment": 6,
            "region_uuid": UUID(int=0),
            "abstraction_uuid": UUID("00010203-0405-0607-0809-0a0b0c0d0e0f"),
            "lba_size": 512,
            "checksum": 9,
        },
    ),
]

# Linux include/acpi/actbl1.h, each list in order from 0
ENUMS = [
    ("acpi_cedt_type", cedt.CedtType, ["CHBS", "CFMWS", "CXIMS", "RDPAS"]),
    (
        "acpi_hmat_type",
        hmat.HmatType,
        ["PROXIMITY_DOMAIN_ATTRIBUTES", "LATENCY_AND_BANDWIDTH", "MEMORY_SIDE_CACHE"],
    ),
    (
        "ACPI_HMAT_ACCESS_LATENCY to ACPI_HMAT_WRITE_BANDWIDTH",
        hmat.HmatDataType,
        [
            *("ACCESS_LATENCY", "READ_LATENCY", "WRITE_LATENCY"),
            *("ACCESS_BANDWIDTH", "READ_BANDWIDTH", "WRITE_BANDWIDTH"),
        ],
    ),
    ("acpi_cdat_type", cdat.CdatType, ["DSMAS", "DSLBIS", "DSMSCIS", "DSIS", "DSEMTS", "SSLBIS"]),
]
