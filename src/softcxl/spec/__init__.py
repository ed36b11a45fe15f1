"""What the standards say, as declarations with clause numbers: registers, blocks and records, no behaviour.

`pci` is the PCI Express Base Specification, `cxl` the registers, DVSECs and tables of CXL, `command` the
payloads of the component command interface, `fm` those of the fabric manager API, `mctp` the packets that carry
both, `acpi` the tables that tell an operating system of CXL.
Nothing here decides anything: devices, hosts and tools give these tables their meaning.
"""
