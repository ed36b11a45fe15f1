"""Events as ``cxl monitor`` prints them: the fields of the kernel's tracepoints, in their order (ndctl
util/event_trace.c; Linux drivers/cxl/core/trace.h).

Numbers are plain, arrays lists of numbers, UUIDs text. Enumerations are the numbers that the kernel has.
"""

from __future__ import annotations

from typing import Any

from softcxl.host.events import NO_HPA, AnyRecord, Event, Overflow, Place, PoisonTrace, Trace
from softcxl.spec.cxl.events import DramEvent, GeneralMediaEvent, MemoryModuleEvent, MemorySparingEvent

Json = dict[str, Any]

_POISON_KINDS = {"List": 0, "Inject": 1, "Clear": 2}
_DPA_FLAGS = 0b11


def to_json(trace: Trace) -> Json:
    """The object that ``cxl monitor`` prints for an event."""
    name, fields = _EVENTS[type(trace)](trace)
    return {"system": "cxl", "event": name, "timestamp": trace.timestamp, **_who(trace), **fields}


def _who(trace: Trace) -> Json:
    return {"memdev": trace.memdev.name, "host": trace.memdev.host}


def _overflow(trace: Overflow) -> tuple[str, Json]:
    return "cxl_overflow", {
        "log": int(trace.log),
        "serial": trace.memdev.serial,
        "first_ts": trace.first,
        "last_ts": trace.last,
        "count": trace.count,
    }


def _poison(trace: PoisonTrace) -> tuple[str, Json]:
    place = trace.place
    return "cxl_poison", {
        "serial": trace.memdev.serial,
        "trace_type": _POISON_KINDS[trace.kind],
        "region": place.region,
        "overflow_ts": trace.overflow_time,
        "hpa": place.hpa,
        "hpa_alias0": NO_HPA,
        "dpa": place.dpa,
        "dpa_length": trace.length,
        # of char in the kernel, which is signed
        "uuid": [one - 256 if one > 127 else one for one in place.region_uuid.bytes],
        "source": int(trace.source),
        "flags": trace.flags,
    }


def _event(trace: Event) -> tuple[str, Json]:
    header = trace.record.header
    fields: Json = {
        "log": int(trace.log),
        "hdr_uuid": str(header.identifier),
        "serial": trace.memdev.serial,
        "hdr_flags": int(header.flags),
        "hdr_handle": header.handle,
        "hdr_related_handle": header.related_handle,
        "hdr_timestamp": header.timestamp,
        "hdr_length": header.length,
        "hdr_maint_op_class": header.maintenance_class,
        "hdr_maint_op_sub_class": header.maintenance_subclass,
        "hdr_ld_id": header.ld_id,
        "hdr_head_id": header.head_id,
    }
    name, own = _record(trace.record, trace.place)
    return name, fields | own


def _record(record: AnyRecord, place: Place | None) -> tuple[str, Json]:
    if isinstance(record, GeneralMediaEvent):
        assert place is not None
        return "cxl_general_media", _general_media(record, place)
    if isinstance(record, DramEvent):
        assert place is not None
        return "cxl_dram", _dram(record, place)
    if isinstance(record, MemoryModuleEvent):
        return "cxl_memory_module", _memory_module(record)
    if isinstance(record, MemorySparingEvent):
        return "cxl_memory_sparing", _memory_sparing(record)
    return "cxl_generic_event", {"data": list(record.data)}


def _general_media(record: GeneralMediaEvent, place: Place) -> Json:
    return {
        "dpa": place.dpa,
        "descriptor": int(record.descriptor),
        "type": record.event_type,
        "transaction_type": record.transaction_type,
        "channel": record.channel,
        "device": record.device,
        "comp_id": list(record.component_identifier),
        "hpa": place.hpa,
        "hpa_alias0": NO_HPA,
        "region_uuid": str(place.region_uuid),
        "validity_flags": int(record.validity),
        "rank": record.rank,
        "dpa_flags": int(record.address) & _DPA_FLAGS,
        # the kernel shows the count only where a threshold is what the event is about
        "cme_count": record.corrected_error_count if record.descriptor.threshold else 0,
        "sub_type": record.sub_type,
        "cme_threshold_ev_flags": int(record.threshold_flags),
        "region_name": place.region,
    }


def _dram(record: DramEvent, place: Place) -> Json:
    return {
        "dpa": place.dpa,
        "descriptor": int(record.descriptor),
        "type": record.event_type,
        "transaction_type": record.transaction_type,
        "channel": record.channel,
        "validity_flags": int(record.validity),
        "column": record.column,
        "nibble_mask": record.nibble_mask,
        "row": record.row,
        "cor_mask": list(record.correction_mask),
        "hpa": place.hpa,
        "hpa_alias0": NO_HPA,
        "region_uuid": str(place.region_uuid),
        "rank": record.rank,
        "bank_group": record.bank_group,
        "bank": record.bank,
        "dpa_flags": int(record.address) & _DPA_FLAGS,
        "comp_id": list(record.component_identifier),
        "cvme_count": record.corrected_error_count if record.descriptor.threshold else 0,
        "sub_type": record.sub_type,
        "sub_channel": record.sub_channel,
        "cme_threshold_ev_flags": int(record.threshold_flags),
        "region_name": place.region,
    }


def _memory_module(record: MemoryModuleEvent) -> Json:
    health = record.health
    return {
        "event_type": record.event_type,
        "health_status": int(health.health_status),
        "media_status": health.media_status,
        "life_used": health.life_used,
        "dirty_shutdown_cnt": health.dirty_shutdown_count,
        "cor_vol_err_cnt": health.corrected_volatile_error_count,
        "cor_per_err_cnt": health.corrected_persistent_error_count,
        "device_temp": health.device_temperature,
        "add_status": int(health.additional_status),
        "event_sub_type": record.sub_type,
        "comp_id": list(record.component_identifier),
        "validity_flags": int(record.validity),
    }


def _memory_sparing(record: MemorySparingEvent) -> Json:
    return {
        "flags": int(record.flags),
        "result": record.result,
        "validity_flags": int(record.validity),
        "res_avail": record.resources_available,
        "channel": record.channel,
        "rank": record.rank,
        "nibble_mask": record.nibble_mask,
        "bank_group": record.bank_group,
        "bank": record.bank,
        "row": record.row,
        "column": record.column,
        "sub_channel": record.sub_channel,
        "comp_id": list(record.component_identifier),
    }


_EVENTS: dict[type, Any] = {Event: _event, Overflow: _overflow, PoisonTrace: _poison}
