"""The listing of a host in this process against what a real Linux in QEMU printed for the same topology file.

The kept listings are tests/kernel/golden, which guests renew and are held to. A PCI address is where a machine happens
to have a bus, and differs: a place is named after the way to it instead. What else QEMU has otherwise is named below;
everything that is not is equal, field by field.
"""

import json
import re
from pathlib import Path

import pytest

from softcxl import Fabric
from tests.kernel.listing import comparable, differences, objects, renamed

GOLDEN = Path("tests/kernel/golden")
NAMES = ["two-devices", "behind-switch", "cxl-test"]


def placed(listing):
    """A comparable listing with each PCI name replaced by the way to it, such as bridge1.0.below."""
    names = {}

    def arrays(value, kind):
        return [one for key, array in value.items() if key.startswith(f"{kind}:") for one in array]

    def walk(port, way):
        for dport in port.get("dports", []):
            names[dport["dport"]] = f"{way}.{dport['id']}"
        for below in arrays(port, "ports"):
            names[below["host"]] = names[below["parent_dport"]] + ".below"
            walk(below, names[below["host"]])
        for endpoint in arrays(port, "endpoints"):
            names[endpoint["memdev"]["host"]] = names[endpoint["parent_dport"]] + ".below"

    (root,) = listing
    # UIDs of bridges are theirs in order, and ACPI's names are QEMU's in reverse
    for number, bridge in enumerate(sorted(root["dports"], key=lambda one: one["id"])):
        names[bridge["dport"]] = f"bridge{number}"
    for port in arrays(root, "ports"):
        walk(port, names[port["host"]])
    for value in objects(listing):
        if value.pop("alias", None):
            value["id"] = int(names[value.get("dport") or value["target"]].removeprefix("bridge"))
    whole = {**names, **{f"port-of-{name}": f"port-of-{way}" for name, way in names.items()}}
    for one in objects(listing):
        if "decoder" in one:
            own, _, above = one["decoder"].partition("-of-")
            whole[one["decoder"]] = f"{own}-of-{whole.get(above, above)}"
    return renamed(listing, whole)


def as_of_this_machine(kept):
    """A kept listing without what cxl finds in debugfs, which a host in this process does not have."""
    for one in objects(kept):
        for key in ("injectable_protocol_errors", "protocol_injectable", "poison_injectable"):
            one.pop(key, None)
    return kept


def four_decoders(found):
    """A listing of ours with the decoders of bridges and switches that QEMU's have."""
    for one in objects(found):
        for key in [key for key in one if key.startswith("decoders:port-of-")]:
            assert len(one[key]) == 8
            one[key] = [
                each for each in one[key] if int(re.findall(r"decoder-(\d+)", each["decoder"])[0]) < 4
            ]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_as_linux_lists_it(name):
    kept = json.loads((GOLDEN / f"{name}.json").read_text())["listing"]
    with Fabric.load(f"examples/{name}.yaml") as fabric:
        (host,) = fabric.hosts.values()
        found = host.boot().listing(verbose=3)
    assert list(differences(placed(four_decoders(comparable(found))), placed(as_of_this_machine(kept)))) == []
