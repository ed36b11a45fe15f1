"""Attributes of /sys, from a guest and from a host in this process, made comparable.

What varies from boot to boot, or with the machine below CXL, is named after what it is: a memory device by its serial
number, ports, endpoints and decoders by what they are of, host bridges by their order, PCI functions not at all.
Nothing else is touched but what `LEFT_OUT` says.
"""

from __future__ import annotations

import re
from pathlib import Path

GOLDEN = Path(__file__).with_name("golden") / "sysfs.json"

TOPOLOGY = """
devices:
  mem0: &both {volatile: 256MiB, persistent: 256MiB, label_storage: 128KiB, serial: 0xC0FFEE01}
  mem1: {<<: *both, serial: 0xC0FFEE02}
  mem2: {volatile: 256MiB, serial: 0xC0FFEE03}
  mem3: {volatile: 256MiB, serial: 0xC0FFEE04}
switches:
  sw0: {ports: [mem2, mem3]}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, sw0]}, hb1: {ports: [mem1]}}
    windows:
      - {size: 1GiB, targets: [hb0, hb1], granularity: 4KiB}
      - {size: 1GiB, targets: [hb0], restrictions: [volatile], qtg: 1}
"""

LEFT_OUT = re.compile(
    r"(^|/)(power|firmware|firmware_node|driver|waiting_for_supplier|access[01]|ndbus0)(/|$)"
    # numbers of character devices; bytes; how many decoders a bridge has is the machine's affair
    r"|/dev$|/CDAT$|^decoder-[4-9]-of-(bridge|switch)|mapping0/uevent$"
)

DUMP = r"""
walk() {
  for f in "$1"/*; do
    if [ -L "$f" ]; then echo "$f -> $(readlink "$f")"
    elif [ -d "$f" ]; then [ -L "$f/subsystem" ] || walk "$f"
    elif [ -e "$f" ]; then
      m=$(stat -c %a "$f")
      case $m in 2*) echo "$f $m";; *) echo "$f $m $(tr -d '\000' < "$f" 2>/dev/null | tr '\n' '~')";; esac
    fi
  done
}
for bus in cxl dax; do
  cd /sys/bus/$bus/devices && for each in *; do [ -e "$each" ] && walk "$each"; done
done
cd /sys/devices/system && for each in memory/memory3[2-9] memory/memory4[0-9]; do [ -e "$each" ] && walk "$each"; done
true
"""
"""A shell's walk over what is compared: ``PATH MODE VALUE``, with ~ for each newline, or ``PATH -> TARGET``."""


def parsed(text: str) -> dict[str, str]:
    """What `DUMP` printed, by path: ``MODE VALUE``, or ``-> NAME`` of what a link leads to."""
    found = {}
    for line in text.splitlines():
        path, _, rest = line.partition(" ")
        mode, _, value = rest.partition(" ")
        if mode == "->":
            found[path] = f"-> {value.rpartition('/')[2]}"
        else:
            found[path] = f"{mode} {value.removesuffix('~')}".rstrip(" ")
    return found


def comparable(found: dict[str, str]) -> dict[str, str]:
    """The same under names that mean the same everywhere."""
    names = _names(found)
    answer = {}
    bridges = _bridges(found)
    for path, value in found.items():
        top, _, rest = path.partition("/")
        named = names.get(top, top)
        if top == "root0" and (link := re.fullmatch(r"dport(\d+)", rest)):
            rest = f"dport{bridges.index(int(link[1]))}"
        elif top.startswith("decoder0.") and rest == "target_list":
            mode, _, listed = value.partition(" ")
            value = f"{mode} {','.join(str(bridges.index(int(one))) for one in listed.split(','))}"
        where = f"{named}/{rest}"
        if LEFT_OUT.search(where):
            continue
        answer[where] = _value(where, value, names)
    return dict(sorted(answer.items()))


def _bridges(found: dict[str, str]) -> list[int]:
    """The numbers of the root's ports, in order."""
    return sorted(int(path.removeprefix("root0/dport")) for path in found if path.startswith("root0/dport"))


def _value(where: str, value: str, names: dict[str, str]) -> str:
    kind, _, text = value.partition(" ")
    if where.endswith("/uevent"):
        text = "~".join(line for line in text.split("~") if not re.match("MAJOR|MINOR|DEVNAME", line))
    if kind == "->" and text not in names and re.search(r"[0-9a-f]{4}:[0-9a-f]{2}", text):
        text = "pci"
    return f"{kind} {names.get(text, text)}".rstrip(" ")


def _names(found: dict[str, str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for path, value in found.items():
        if re.fullmatch(r"mem\d+/serial", path):
            name = f"memdev-{value.partition(' ')[2]}"
            names[path.partition("/")[0]] = name
            names[path.partition("/")[0].replace("mem", "pmem")] = f"pmem-of-{name}"
    buses = {found[f"root0/dport{number}"]: rank for rank, number in enumerate(_bridges(found))}
    ports = {
        path.partition("/")[0]: value for path, value in found.items() if re.fullmatch(r"port\d+/uport", path)
    }
    for port, uport in ports.items():
        if uport in buses:
            names[port] = f"bridge{buses[uport]}"
    for port in ports.keys() - names.keys():  # one level of switches
        above = found[f"{port}/parent_dport"]
        leads = next(
            path
            for path, value in found.items()
            if value == above and re.fullmatch(r"port\d+/dport\d+", path)
        )
        names[port] = f"switch-of-{names[leads.partition('/')[0]]}-{leads.partition('/')[2]}"
    for path, value in found.items():
        if re.fullmatch(r"endpoint\d+/uport", path):
            names[path.partition("/")[0]] = f"endpoint-of-{names[value.removeprefix('-> ')]}"
    for top in {path.partition("/")[0] for path in found}:
        decoder = re.fullmatch(r"decoder([1-9]\d*)\.(\d+)", top)
        if decoder:
            of = next(names[one + decoder[1]] for one in ("port", "endpoint") if one + decoder[1] in names)
            names[top] = f"decoder-{decoder[2]}-of-{of}"
    return names
