"""Arguments, results and errors come out as they went in; what a function does not take is refused, and said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcxl.pool import codec, errors

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


def anything(*positional: Any) -> None: ...


def lookup(key: int) -> bytes:
    return b"%d" % key


def store(key: int, value: bytes, *, times: int = 1, label: str = "") -> None: ...


def echo(data: bytes) -> bytes:
    return data


def named(data: bytes, *, by: int) -> bytes:
    return data * by


def move(point: Point, by: int = 1) -> Point:
    return Point(point.x + by, point.y)


def sent(
    function: Callable[..., Any], *positional: Any, **named: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    data, kind = codec.encode_arguments(positional, named)
    return codec.Signature(function).arguments(codec.number_of(function.__name__) | kind, data)


@given(PLAIN)
def test_whatever_can_be_a_result_comes_back(value: Any) -> None:
    data, kind = codec.encode_result(value)
    assert (bytes(data) if kind == 0 else codec.decode(data)) == value


@given(st.binary())
def test_bytes_go_as_they_are(data: bytes) -> None:
    assert codec.encode_arguments((data,), {}) == (data, 0)
    assert codec.encode_result(data) == (data, 0)
    assert sent(echo, data) == ((data,), {})


def test_arguments_are_typed_by_annotations() -> None:
    assert sent(lookup, 7) == ((7,), {})
    assert sent(lookup, key=7) == ((7,), {})
    assert sent(store, 1, b"v") == ((1, b"v"), {})
    assert sent(store, 1, value=b"v", times=2) == ((1, b"v"), {"times": 2})
    assert sent(move, Point(1, 2)) == ((Point(1, 2), 1), {})
    assert sent(move, {"x": 1}, 5) == ((Point(1), 5), {})


@pytest.mark.parametrize(
    ("function", "positional", "named", "said"),
    [
        (lookup, ("seven",), {}, "Expected `int`, got `str`"),
        (lookup, (), {}, "at least length 1|length 1"),
        (lookup, (1, 2), {}, "length 1"),
        (lookup, (b"seven",), {}, "Expected `int`"),
        (lookup, (7,), {"base": 2}, "unexpected keyword argument 'base'"),
        (store, (1, "text"), {}, "Expected `bytes`"),
        (store, (1, b""), {"times": "two"}, "Expected `int`"),
        (named, (1,), {}, "missing a required argument: 'by'"),
        (named, (b"1",), {}, "missing a required argument: 'by'"),
        (move, ({"y": 1},), {}, "missing required field `x`"),
        (move, ({"x": 1}, 2, 3), {}, "length"),
    ],
)
def test_other_arguments_are_refused_with_what_the_function_takes(
    function: Callable[..., Any], positional: tuple[Any, ...], named: dict[str, Any], said: str
) -> None:
    with pytest.raises(errors.BadCall, match=said) as caught:
        sent(function, *positional, **named)
    assert function.__name__ + "(" in str(caught.value)


@given(st.binary(), st.integers(0, 0x3F))
def test_rubbish_is_refused_and_nothing_else(data: bytes, how: int) -> None:
    for function in (lookup, store, echo, move):
        try:
            codec.Signature(function).arguments(codec.number_of(function.__name__) | how << 24, data)
        except errors.BadCall:
            pass


def test_what_cannot_be_sent_says_so() -> None:
    with pytest.raises(TypeError, match="these arguments cannot be sent"):
        codec.encode_arguments((object(),), {})
    with pytest.raises(TypeError, match="a result of type tuple_iterator cannot be sent"):
        codec.encode_result(iter(()))
    deep: list[Any] = []
    for _ in range(10000):
        deep = [deep]
    with pytest.raises(TypeError, match="cannot be sent"):
        codec.encode_result(deep)


def test_a_function_whose_arguments_cannot_be_checked_is_no_service_function() -> None:
    with pytest.raises(TypeError, match=r"anything\(\*positional: 'Any'\)|\*positional"):
        codec.Signature(anything)

    def unknown(a: "NoSuchType") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037

    with pytest.raises(TypeError, match="annotations cannot be read"):
        codec.Signature(unknown)


class Own(Exception):
    """None that the other side has."""


def raised(error: BaseException, trace: str = "") -> Exception:
    return codec.decode_failure(codec.encode_failure(error, trace))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such thing"),
        KeyError(7),
        ZeroDivisionError(),
        FileNotFoundError(2, "No such file"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        errors.NoRoom("full up"),
        errors.Closed(),
    ],
)
def test_known_errors_come_back_as_themselves(error: Exception) -> None:
    found = raised(error, "Traceback")
    assert type(found) is type(error)
    assert found.args == error.args
    assert found.__notes__ == ["in the service:\nTraceback"]


@pytest.mark.parametrize("error", [Own("odd"), SystemExit("stop"), ExceptionGroup("two", [ValueError()])])
def test_other_errors_come_back_by_name(error: BaseException) -> None:
    found = raised(error, "Traceback")
    assert type(found) is errors.RemoteError
    assert found.type.endswith(type(error).__name__)
    assert found.trace == "Traceback"
    assert str(error) in str(found)


class Mean(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x" * 100_000),
        ValueError(b"x" * 100_000),
        ValueError("\U0001f600" * 5000),
        Own("\ud800"),
        Mean(),
        KeyError("a" * 5000, "b"),
    ],
)
def test_an_error_that_is_long_or_odd_still_fits_a_cell(error: Exception) -> None:
    for trace in ("t" * 100_000, "\U0001f600" * 100_000):
        data = codec.encode_failure(error, trace)
        assert len(data) <= 4096
    assert isinstance(codec.decode_failure(data), Exception)


@given(st.binary())
def test_an_error_that_cannot_be_read_is_corrupt(data: bytes) -> None:
    assert isinstance(codec.decode_failure(data), errors.Corrupt)


@given(st.text())
def test_a_number_has_24_bits(name: str) -> None:
    assert 0 <= codec.number_of(name) <= 0xFFFFFF
