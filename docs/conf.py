"""Sphinx configuration. The pages under reference/generated are made from the code, by _ext/reference."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import softcxl

project = "SoftCXL"
author = "The SoftCXL authors"
release = version = softcxl.__version__

extensions = ["myst_parser", "sphinx.ext.doctest", "reference"]
exclude_patterns = ["_build", "_ext"]
myst_heading_anchors = 3
# Examples in pages are tests; those in docstrings are run by tests/docs.
doctest_test_doctest_blocks = ""

html_theme = "furo"
html_title = "SoftCXL"
html_show_copyright = False
nitpicky = True
