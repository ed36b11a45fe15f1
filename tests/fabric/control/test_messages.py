"""Requests and answers as bytes, there and back; and topologies as a server sends them."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import pytest

from softcxl.cli.verbs import VERBS, CreateRegion, DestroyRegion, Explain, List
from softcxl.fabric.control.messages import (
    Answer,
    Garbage,
    Request,
    RequestError,
    make,
    plain,
    read_answer,
    read_request,
    write,
)
from softcxl.fabric.topology import load, loads
from softcxl.fabric.tree import to_json
from softcxl.host.list import Include

TOP = (1 << 64) - 1


@pytest.mark.parametrize(
    ("name", "verb"),
    [
        ("list", List(Include(memdevs=True, only_regions=frozenset({"region0", "1"})), 3)),
        ("explain", Explain(TOP, region="region0", as_json=True)),
        ("region create", CreateRegion(("mem1", "mem0"), size=1 << 40, type="pmem", uuid=UUID(int=7))),
        ("region create", CreateRegion()),
        ("region destroy", DestroyRegion(("all",))),
    ],
)
def test_a_verb_comes_out_as_it_went_in(name, verb):
    line = write(Request(version=1, verb=name, host=None, arguments=plain(verb)))
    assert b"\n" not in line
    request = read_request(line)
    assert make(VERBS[request.verb], request.arguments) == verb


def test_what_is_left_out_has_its_default():
    assert make(List, {}) == List()
    assert make(List, {"include": {"ports": True}}) == List(Include(ports=True))


@pytest.mark.parametrize("out", [b"", b"one\ntwo\n", "├── mem0\n".encode(), b"\xff\x00\n"])
def test_an_answer_has_the_bytes_that_were_said(out):
    line = write(Answer.of(1, out, "softcxl: no\n"))
    assert b"\n" not in line
    answer = read_answer(line)
    assert (answer.status, answer.said, answer.stderr) == (1, out, "softcxl: no\n")
    # what is no text is base64 (RFC 4648 §10: 0xff 0x00 0x0a is "/wAK"), and what is text is not
    told = json.loads(line)
    assert told.get("stdout_base64") == ("/wAK" if out.startswith(b"\xff") else None)


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"null", b'{"version": "1"}', b"\xff", b'{"version": 1, "verb": 5}']
)
def test_a_line_that_is_no_request(line):
    with pytest.raises(Garbage, match="no request of a verb"):
        read_request(line)


def test_another_version_may_have_other_fields():
    with pytest.raises(RequestError, match="version 2 is asked for; this server speaks 1"):
        read_request(b'{"version": 2, "do": ["list"]}')


@pytest.mark.parametrize(
    ("verb", "arguments", "said"),
    [
        (CreateRegion, {"type": "nvm"}, "Invalid enum value 'nvm' - at `$.type`"),
        (CreateRegion, {"uuid": "zzz"}, "Invalid UUID - at `$.uuid`"),
        (CreateRegion, {"size": 1.5}, "Expected `int | null`, got `float` - at `$.size`"),
        (Explain, {"address": 1, "memdevs": "mem0"}, "there is no 'memdevs'; there are address, memdev, "),
    ],
)
def test_arguments_that_a_verb_has_not(verb, arguments, said):
    with pytest.raises(RequestError) as caught:
        make(verb, arguments)
    assert str(caught.value).startswith("arguments: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("file", sorted(Path("examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_topology_comes_out_as_it_went_in(file):
    topology = load(file)
    assert loads(to_json(topology)) == topology
