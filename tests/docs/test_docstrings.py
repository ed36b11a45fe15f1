"""Examples in docstrings do what they say."""

import doctest
import importlib
import pkgutil

import pytest

import softcxl

NAMES = ["softcxl", *(found.name for found in pkgutil.walk_packages(softcxl.__path__, "softcxl."))]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("__main__")])
def test_examples_in_docstrings(name):
    failed, _ = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert failed == 0
