"""The comparison of listings is right about what is equal and about where a difference is. Needs no guest."""

from __future__ import annotations

from typing import Any

from tests.kernel.listing import comparable, differences


def listing(first: str = "mem0", second: str = "mem1", turned: bool = False) -> list[dict[str, Any]]:
    endpoints = [
        {
            "endpoint": f"endpoint{2 + number}",
            "host": name,
            "memdev": {"memdev": name, "serial": 0xA0 + number, "ram_size": 1},
            f"decoders:endpoint{2 + number}": [{"decoder": f"decoder{2 + number}.0", "interleave_ways": 1}],
        }
        for number, name in enumerate((first, second))
    ]
    port = {
        "port": "port1",
        "host": "pci0000:0c",
        "endpoints:port1": endpoints[::-1] if turned else endpoints,
    }
    return [{"bus": "root0", "ports:root0": [port], "mappings": [{"position": 1, "memdev": second}]}]


def test_the_order_of_probing_makes_no_difference() -> None:
    assert list(differences(comparable(listing("mem1", "mem0", turned=True)), comparable(listing()))) == []


def test_a_difference_has_its_path() -> None:
    other = listing()
    other[0]["ports:root0"][0]["endpoints:port1"][1]["memdev"]["ram_size"] = 2
    assert list(differences(comparable(other), comparable(listing()))) == [
        "[0]['ports:root0'][0]['endpoints:port-of-pci0000:0c'][1].memdev.ram_size: 2, kept is 1"
    ]


def test_what_is_absent_or_new_or_of_another_type_is_a_difference() -> None:
    assert list(differences({"a": 1, "b": 0}, {"b": False, "c": [1]})) == [
        ".a: 1, not in what is kept",
        ".b: 0, kept is false",
        ".c: absent, kept is [1]",
    ]
    assert list(differences([1, 2], [1])) == [": 2 entries, kept are 1"]


def test_a_region_over_the_wrong_device_is_a_difference() -> None:
    other = listing()
    other[0]["mappings"][0]["memdev"] = "mem0"
    assert list(differences(comparable(other), comparable(listing()))) == [
        '[0].mappings[0].memdev: "memdev-0xa0", kept is "memdev-0xa1"'
    ]
