"""The examples in the docstrings of declarations and of the kits do what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["softcxl.wire.hook", "softcxl.wire.record", "softcxl.testing.strategies"])
def test_examples(name):
    results = doctest.testmod(importlib.import_module(name))
    assert (results.failed, results.attempted > 0) == (0, True)
