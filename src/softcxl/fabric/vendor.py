"""Features of a vendor's, from a topology's keys to the device's."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from softcxl.device.feature import AFTER_COLD_RESET, AFTER_RESET, AT_ONCE, VendorFeature
from softcxl.fabric import keys
from softcxl.fabric.limits import Fault, Path
from softcxl.spec.command.features import STANDARD

_EFFECTS = {"immediate": AT_ONCE, "conventional-reset": AFTER_RESET, "cold-reset": AFTER_COLD_RESET}


def feature(key: keys.Feature) -> VendorFeature:
    """What the device is made with."""
    mask = b"\xff" * key.size if key.changeable is None else _bytes(key.changeable, key.size)
    return VendorFeature(
        UUID(key.uuid),
        _bytes(key.default, key.size),
        mask=mask,
        version=key.version,
        effects=_EFFECTS[key.effect],
    )


def faults(device: keys.Type3, at: Path) -> Iterator[Fault]:
    """What cannot be of the features of one device."""
    known = dict.fromkeys(map(str, STANDARD), "one of the standard's")
    for number, key in enumerate(device.features):
        here = (*at, "features", number)
        identifier = key.uuid.lower()
        if identifier in known:
            yield Fault((*here, "uuid"), f"{key.uuid} is {known[identifier]}; each feature needs its own")
        known.setdefault(identifier, f"that of features[{number}]")
        for name in ("default", "changeable"):
            given = getattr(key, name) or ""
            if len(given) > 2 * key.size:
                yield Fault(
                    (*here, name),
                    f"{len(given) // 2} bytes are given, and its size is {key.size}",
                    ((*here, "size"),),
                )


def _bytes(digits: str, size: int) -> bytes:
    return bytes.fromhex(digits).ljust(size, b"\0")
