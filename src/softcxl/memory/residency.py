"""Who rests in a window's file, and the page that remembers it beside a named file.

The page ``<file>.json`` is replaced as a whole, by rename, after it has reached the disk: whoever reads it
after a crash finds the last complete one.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from softcxl.memory.errors import MapDamaged, MediumFull, MemoryFault
from softcxl.memory.interleave import Interleave
from softcxl.memory.page import replace as replace_page
from softcxl.memory.stripe import Stripe

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FORMAT = 1
"""Version of the page; another one is refused, not guessed at."""


@dataclass(frozen=True, slots=True)
class Resident:
    """DPA `start` to `end` of the device named `device` rests in the window's file, placed by `stripe`."""

    device: str
    start: int
    end: int
    stripe: Stripe

    @property
    def order(self) -> tuple[str, int]:
        """Devices in order of name, their ranges in order of DPA."""
        return self.device, self.start


def without(residents: Iterable[Resident], leaving: Iterable[Resident]) -> tuple[Resident, ...]:
    """The residents, less the ranges of `leaving`; what is left of a range keeps its place."""
    staying = tuple(residents)
    for gone in leaving:
        parts: list[Resident] = []
        for one in staying:
            if one.device != gone.device or one.end <= gone.start or gone.end <= one.start:
                parts.append(one)
                continue
            if one.start < gone.start:
                parts.append(replace(one, end=gone.start))
            if gone.end < one.end:
                parts.append(replace(one, start=gone.end))
        staying = tuple(parts)
    return staying


def joined(residents: Iterable[Resident]) -> tuple[Resident, ...]:
    """The residents in order, neighbours that continue each other made one."""
    result: list[Resident] = []
    for one in sorted(residents, key=lambda resident: resident.order):
        last = result[-1] if result else None
        if last and (last.device, last.end, last.stripe) == (one.device, one.start, one.stripe):
            result[-1] = replace(last, end=one.end)
        else:
            result.append(one)
    return tuple(result)


def page_beside(file: Path) -> Path:
    """Where the residency page of the window file `file` is."""
    return file.with_name(file.name + ".json")


def save(page: Path, residents: Iterable[Resident]) -> None:
    """Replace the page. When this returns it is on disk; if it raises, the old page stands."""
    text = json.dumps({"format": FORMAT, "residents": [asdict(one) for one in residents]}, indent=1)
    try:
        replace_page(page, text + "\n")
    except OSError as error:
        raise MediumFull(f"{page}: the residency map cannot be saved: {error.strerror}") from error


def load(page: Path, size: int) -> tuple[Resident, ...]:
    """The residents on the page, none if there is no page. `size` is that of the window file.

    Raises `MapDamaged` for a page that cannot be read or does not fit the file: its bytes would be lost if
    it were passed over.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise MapDamaged(f"{page}: the residency map cannot be read: {error}") from error
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise MapDamaged(f"{page}: format {content['format']}, this version reads {FORMAT}")
        residents = tuple(_resident(entry) for entry in content["residents"])
    except (ValueError, KeyError, TypeError) as error:
        raise MapDamaged(f"{page}: not a residency map: {error!r}") from error
    except MemoryFault as error:
        raise MapDamaged(f"{page}: {error}") from error
    ordered = sorted(residents, key=lambda resident: resident.order)
    for one in ordered:
        low, high = one.stripe.span(one.start, one.end)
        if not (0 <= one.start < one.end and low >= 0 and high <= size):
            raise MapDamaged(f"{page}: DPA {one.start:#x} of {one.device} is not within the {size:#x} bytes")
    for one, following in itertools.pairwise(ordered):
        if one.device == following.device and following.start < one.end:
            raise MapDamaged(f"{page}: DPA {following.start:#x} of {one.device} is there twice")
    return tuple(ordered)


def _resident(entry: dict[str, Any]) -> Resident:
    stripe = entry["stripe"]
    shape = stripe["interleave"]
    interleave = Interleave(
        int(shape["ways"]),
        int(shape["granularity"]),
        tuple(int(xor_map) for xor_map in shape["xor_maps"]),
        int(shape["base"]),
    )
    place = Stripe(int(stripe["origin"]), interleave, int(stripe["position"]), int(stripe["dpa_base"]))
    return Resident(str(entry["device"]), int(entry["start"]), int(entry["end"]), place)
