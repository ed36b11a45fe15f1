"""What `cxl list` printed, made comparable, and its differences from a kept listing, each with its path.

Two things vary from boot to boot and are replaced, nothing else: Linux numbers memdevs, ports and their decoders in
the order in which its parallel probing comes to them, and lists siblings in that order. So a memdev is named after its
serial number, an endpoint after its memdev, a port after its host, a decoder after its port; and siblings are sorted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import Linux
from tests.kernel.regions import destroy, devdax

GOLDEN = Path(__file__).with_name("golden")
_SORTED_BY = ("serial", "id", "decoder", "endpoint", "port", "region", "position")


def comparable(listing: Any) -> Any:
    """The listing with names that mean the same in every boot, and siblings in an order of their own."""
    names: dict[str, str] = {}
    for one in objects(listing):
        if "memdev" in one and "serial" in one:
            names[one["memdev"]] = f"memdev-{one['serial']:#x}"
    for one in objects(listing):
        if "endpoint" in one:
            names[one["endpoint"]] = "endpoint-of-" + names[one["host"]]
        elif "port" in one:
            names[one["port"]] = f"port-of-{one['host']}"
    for one in objects(listing):
        if "decoder" in one and "interleave_ways" in one:
            number, _, own = one["decoder"].removeprefix("decoder").partition(".")
            above = next(
                (names[name] for name in (f"port{number}", f"endpoint{number}") if name in names), "root"
            )
            names[one["decoder"]] = f"decoder-{own}-of-{above}"
    return renamed(listing, names)


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a listing, outer ones first."""
    if isinstance(value, dict):
        yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from objects(child)


def renamed(value: Any, names: dict[str, str]) -> Any:
    """A listing with other names, siblings sorted anew."""
    if isinstance(value, dict):
        return {_key(key, names): renamed(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return sorted((renamed(one, names) for one in value), key=_order)
    return names.get(value, value) if isinstance(value, str) else value


def _key(key: str, names: dict[str, str]) -> str:
    # such as "decoders:port1"
    kind, colon, name = key.partition(":")
    return kind + colon + names.get(name, name)


def _order(one: Any) -> Any:
    if not isinstance(one, dict):
        return str(one)
    return [str(one[key]) for key in _SORTED_BY if key in one] + [json.dumps(one, sort_keys=True)]


def differences(found: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Every difference: its path, what was found, what is kept."""
    if isinstance(found, dict) and isinstance(kept, dict):
        for key in sorted({*found, *kept}):
            at = f"{path}.{key}" if re.fullmatch(r"\w+", key) else f"{path}[{key!r}]"
            if key not in found:
                yield f"{at}: absent, kept is {json.dumps(kept[key])[:80]}"
            elif key not in kept:
                yield f"{at}: {json.dumps(found[key])[:80]}, not in what is kept"
            else:
                yield from differences(found[key], kept[key], at)
    elif isinstance(found, list) and isinstance(kept, list):
        if len(found) != len(kept):
            yield f"{path}: {len(found)} entries, kept are {len(kept)}"
        for number, (one, other) in enumerate(zip(found, kept, strict=False)):
            yield from differences(one, other, f"{path}[{number}]")
    elif found != kept or type(found) is not type(kept):
        yield f"{path}: {json.dumps(found)[:80]}, kept is {json.dumps(kept)[:80]}"


@dataclass(frozen=True)
class Wanted:
    """A region to make before the listing: devices by name in order of position, sizes in bytes."""

    devices: list[str]
    decoder: str = "decoder0.0"
    granularity: int | None = None
    type: str = "ram"
    size: int | None = None


@dataclass(frozen=True)
class Scene:
    """What is made in a fabric before it is listed: regions, and poison at device addresses. In a `used` guest there
    have been regions before."""

    regions: list[Wanted] = field(default_factory=list)
    poison: list[tuple[str, int]] = field(default_factory=list)
    used: bool = False


def check_listing(guest: Linux, name: str, scene: Scene | None = None) -> Any:
    """Set the scene, compare `cxl list -vvv` with golden/NAME.json, and take the scene apart; returns the listing.

    NAME is that of a file of examples/ or of a module here, whose TOPOLOGY the fabric is; what follows a "+" tells
    scenes apart. tests/host/test_against_linux.py compares all that is kept with a host in its own process.
    """
    scene = scene or Scene()
    made = []
    for one in scene.regions:
        more = f"-s {one.size}" if one.size else ""
        region = guest.create_region(
            one.devices, granularity=one.granularity, decoder=one.decoder, type=one.type, more=more
        )
        made.append(region)
        if one.type == "ram":
            devdax(guest, region)  # memory of the system is busy
    for device, dpa in scene.poison:
        guest.fabric.devices[device].inject_poison(dpa)
    # Asking for poison takes cxl 2 s a device without KVM, for the formats of all trace events there are.
    everything = "-vvv" if scene.poison or len(guest.fabric.devices) <= 4 else "-vv -H -A -I -F -X"
    listing = guest.json(f"cxl list {everything}")
    assert_golden(guest, listing, name, scene)
    for device, dpa in scene.poison:
        guest.fabric.devices[device].clear_poison(dpa, 64)
    for region in reversed(made):
        destroy(guest, region)
    return listing


def assert_golden(guest: Linux, listing: Any, name: str, scene: Scene) -> None:
    """Compare field by field with golden/NAME.json, which another version of Linux or of cxl skips.

    With SOFTCXL_GOLDEN=keep in the environment the listing is kept instead. Look at what changed before you commit it.
    """
    file = GOLDEN / f"{name}.json"
    versions = {
        "linux": guest.machine.release.split("-")[0].rpartition(".")[0],
        "cxl": guest.sh("cxl version").strip(),
    }
    found = {"versions": versions, "scene": asdict(scene), "listing": comparable(listing)}
    found = json.loads(json.dumps(found))  # tuples are lists there
    if os.environ.get("SOFTCXL_GOLDEN") == "keep":
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n")
    kept = json.loads(file.read_text())
    if kept["versions"] != versions:
        pytest.skip(f"kept from {kept['versions']}, and this is {versions}: fields come and go with versions")
    wrong = list(differences(found, kept))
    assert not wrong, "\n".join(wrong)
