"""Whatever stands in a file, the only error is TopologyError, and its messages are sentences."""

from pathlib import Path

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from softcxl.fabric.topology import TopologyError, loads
from softcxl.fabric.tree import to_json, tree

EXAMPLES = [file.read_text() for file in sorted(Path("examples").glob("*.yaml"))]
assert EXAMPLES

KEYS = [
    *("devices", "switches", "hosts", "state", "bridges", "ports", "windows", "regions", "targets", "size"),
    *("volatile", "persistent", "label_storage", "serial", "type", "class", "file", "memory", "window", "<<"),
    *("granularity", "decoders", "restrictions", "a", "b", "mem0", "hb0"),
    *("virtual", "logical_devices", "dynamic", "heads", "on_unbind", "pool", "rack"),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 1 << 70),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        [
            "256MiB",
            "512MiB",
            "1GiB",
            "0x10",
            "mem0",
            "hb0",
            "sw0",
            "xor",
            "ram",
            "volatile",
            "type3",
            "mld",
            "pool.0",
        ]
    ),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=40,
)


def attempt(text: str | bytes) -> None:
    problems = []
    try:
        fabric = loads(text, "fuzz.yaml")
    except TopologyError as error:
        problems = error.problems
    else:
        assert str(tree(fabric))
        assert to_json(fabric)
        return
    assert problems
    for problem in problems:
        assert problem.message
        assert "\n" not in problem.message
        assert len(problem.message) < 700


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """An example with a few stretches cut out, doubled, or replaced."""
    text = draw(st.sampled_from(EXAMPLES))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 20)))
        other = draw(st.sampled_from(EXAMPLES))
        at = draw(st.integers(0, len(other)))
        piece = draw(
            st.sampled_from(
                ["", text[start:stop] * 2, other[at : at + 12], "[", "}", ": ", "\n", "&a ", "*a", "<<: "]
            )
            | st.text(max_size=6)
        )
        text = text[:start] + piece + text[stop:]
    return text


@given(mutated())
@settings(max_examples=100)
def test_mutated_examples(text):
    attempt(text)


@given(TREES)
@settings(max_examples=100)
def test_other_trees(value):
    attempt(yaml.safe_dump(value, allow_unicode=True))


@given(
    st.fixed_dictionaries({"devices": TREES, "hosts": TREES}, optional={"switches": TREES, "state": SCALARS})
)
@settings(max_examples=100)
def test_trees_below_the_right_keys(value):
    attempt(yaml.safe_dump(value, allow_unicode=True))


@given(st.binary(max_size=60) | st.text(max_size=60))
@example("%YAML 9.9\n---\n{}")
@example("!<%FF> {}")
@example("&a [*a]")
@example("&a {devices: *a}")
@example("devices: &a {x: *a}")
@example("\ufeffdevices: {}")
@example("\ud800")
@settings(max_examples=100)
def test_bytes_and_text(text):
    attempt(text)
