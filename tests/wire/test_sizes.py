import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcxl.wire.sizes import format_size, parse_number, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("0x1000", 4096),
        ("0X_1000", 4096),
        ("1_000", 1000),
        ("512B", 512),
        ("4KiB", 4096),
        ("4 kib", 4096),
        ("256MiB", 268435456),
        (" 1GiB ", 1073741824),
        ("2TiB", 2199023255552),
        ("0MiB", 0),
    ],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("256MB", "did you mean 256MiB?"),
        ("1G", "did you mean 1GiB?"),
        ("1.5T", "did you mean 1.5TiB?"),
        ("3 parsecs", "units are B, KiB, MiB, GiB, TiB"),
        ("1.5GiB", "write it in a smaller unit"),
        ("1.5", "not a whole number of bytes"),
        ("010", "starts with 0"),
        ("-1", "write one like 256MiB"),
        ("", "write one like 256MiB"),
        ("0xZZ", "write one like 256MiB"),
        ("lots", "write one like 256MiB"),
        ("1__0", "not a size"),
        ("9" * 5000, "…"),
        ("٣MiB", "not a size"),
    ],
)
def test_what_is_no_size_says_what_is(text, part):
    with pytest.raises(ValueError) as caught:
        parse_size(text)
    assert part in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("12", 12), ("0xC0FFEE01", 3237998081), ("1_0", 10)])
def test_numbers_are_read(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "x", "1.0", "012", "1e3", "0b1", "1:30", "-4", "1__0", "0x", "1_", "９"]
)
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError):
        parse_number(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1, "1B"), (1023, "1023B"), (1024, "1KiB"), (402653184, "384MiB"), (1 << 40, "1TiB")],
)
def test_sizes_are_written_exactly(size, text):
    assert format_size(size) == text


@given(st.integers(0, 1 << 64))
def test_writing_and_reading_are_inverse(size):
    assert parse_size(format_size(size)) == size
