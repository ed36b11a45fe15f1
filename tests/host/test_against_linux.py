"""The listing of a host in this process against what a real Linux in QEMU printed for the same topology file.

The kept listings are tests/kernel/golden, to which guests are held (tests/kernel/listing.py). DIFFERENCES names all
that QEMU has otherwise; everything else is equal, field by field.
"""

import json
import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from softcxl import Fabric
from softcxl.fabric.topology import load
from softcxl.lab.limits import limits
from tests.kernel.listing import comparable, differences, objects, renamed

GOLDEN = Path("tests/kernel/golden")


def arrays(value, kind):
    """What stands directly below an object: all of its "ports", "endpoints" or "decoders"."""
    return [one for key, array in value.items() if key.startswith(f"{kind}:") for one in array]


def placed(listing):
    """A comparable listing with each PCI name replaced by the way to it, such as bridge1.0.below."""
    names = {}

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


def forgotten(listing):
    """A listing without what decoders of no region say of the last one."""
    for value in objects(listing):
        if "bus" not in value:
            for one in arrays(value, "decoders"):
                if "region" not in one:
                    for key in one.keys() - {"decoder"}:
                        del one[key]
    return listing


def asked(listing):
    """A listing without the poison of memory devices for which Linux does not ask."""
    for endpoint in [one for one in objects(listing) if "endpoint" in one]:
        used = [
            one["dpa_resource"] + one["dpa_size"] for one in arrays(endpoint, "decoders") if "region" in one
        ]
        memdev = endpoint["memdev"]
        if not used or "media_errors" not in memdev:
            continue
        ram = memdev.get("ram_size", 0)
        if max(used) == ram:
            memdev["media_errors"] = [one for one in memdev["media_errors"] if one["offset"] < ram]
    return listing


def four_decoders(listing):
    """A listing with the first four decoders of bridges and switches, none of which is left out in use."""
    for one in objects(listing):
        for key in [key for key in one if key.startswith("decoders:port-of-")]:
            rest = [each for each in one[key] if int(re.findall(r"decoder-(\d+)", each["decoder"])[0]) >= 4]
            assert not any("region" in each for each in rest)
            one[key] = [each for each in one[key] if each not in rest]
    return listing


DIFFERENCES = [
    (
        placed,
        """PCI addresses, ACPI names of host bridges and their _UIDs are the machine's: QEMU numbers buses one after the
        other from 12 on, has a bridge's bus for its _UID, and names bridges in reverse; a host in this process leaves
        room for hot add between buses. Places are compared by the way to them.""",
    ),
    (four_decoders, "QEMU's bridges and switches have 4 decoders (hw/cxl/cxl-component-utils.c), ours 8."),
    (
        forgotten,
        """A decoder whose region is gone goes on saying in Linux what that was, until there is another one. A host in
        this process reads decoders as they are. Only in scenes of which it is told that there were regions before.""",
    ),
    (
        asked,
        """Linux does not ask for poison in persistent memory where regions have all of a device's volatile memory and
        none of the other (drivers/cxl/core/region.c, cxl_get_poison_unmapped). What a host in this process lists is
        whole.""",
    ),
]
"""All that differs, each with what makes two listings alike that differ in nothing else, and the reason."""


def topology(name, folder):
    """The file of the fabric that a kept listing is of, in `folder`."""
    base = name.partition("+")[0]
    if base.startswith("test_"):
        (path := folder / "topology.yaml").write_text(import_module(f"tests.kernel.{base}").TOPOLOGY)
        return path
    shutil.copytree("examples", folder, dirs_exist_ok=True)
    return folder / f"{base}.yaml"


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_as_linux_lists_it(name, tmp_path):
    kept = json.loads((GOLDEN / f"{name}.json").read_text())
    with Fabric.load(topology(name, tmp_path)) as fabric:
        host = next(iter(fabric.hosts.values()))  # as it is booted in QEMU
        system = host.boot()
        by_serial = {one.serial: one for one in system.memdevs.values()}
        for one in kept["scene"]["regions"]:
            devices = [by_serial[fabric.devices[each].serial] for each in one.pop("devices")]
            system.create_region(devices, **one)
        for device, dpa in kept["scene"]["poison"]:
            fabric.devices[device].inject_poison(dpa)
        found = comparable(system.listing(verbose=3))
    listing = kept["listing"]
    for alike, _ in DIFFERENCES:
        if alike is not forgotten or kept["scene"]["used"]:
            found, listing = alike(found), alike(listing)
    wrong = list(differences(found, listing))
    assert not wrong, "\n".join(wrong)


def test_every_example_has_been_compared():
    names = {path.stem.partition("+")[0] for path in GOLDEN.glob("*.json")}
    bootable = {
        path.stem for path in Path("examples").glob("*.yaml") if all(one.boots for one in limits(load(path)))
    }
    assert bootable - names == set()
