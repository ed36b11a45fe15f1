"""Where bytes rest and how addresses find them: media, interleave arithmetic, windows, device memory."""

from softcxl.memory.dpa import DpaSpace
from softcxl.memory.errors import (
    AddressError,
    GeometryError,
    MapDamaged,
    MediumClosed,
    MediumError,
    MediumFull,
    MediumInUse,
    MediumUnfit,
    MemoryFault,
    PersistenceLost,
    ResidencyError,
    ResidentAbsent,
)
from softcxl.memory.interleave import (
    GRANULARITIES,
    WAYS,
    Interleave,
    decode_granularity,
    decode_ways,
    encode_granularity,
    encode_ways,
)
from softcxl.memory.levels import Level, flatten
from softcxl.memory.media import Medium
from softcxl.memory.places import Commitment, Part
from softcxl.memory.residency import Resident
from softcxl.memory.sparse import copy_range
from softcxl.memory.strides import gather, scatter
from softcxl.memory.stripe import Stripe
from softcxl.memory.window import Window
from softcxl.memory.xor import maps_for

__all__ = [
    "GRANULARITIES",
    "WAYS",
    "AddressError",
    "Commitment",
    "DpaSpace",
    "GeometryError",
    "Interleave",
    "Level",
    "MapDamaged",
    "Medium",
    "MediumClosed",
    "MediumError",
    "MediumFull",
    "MediumInUse",
    "MediumUnfit",
    "MemoryFault",
    "Part",
    "PersistenceLost",
    "ResidencyError",
    "Resident",
    "ResidentAbsent",
    "Stripe",
    "Window",
    "copy_range",
    "decode_granularity",
    "decode_ways",
    "encode_granularity",
    "encode_ways",
    "flatten",
    "gather",
    "maps_for",
    "scatter",
]
