import sys
from pathlib import Path

import pytest

EXTENSIONS = str(Path(__file__).parents[2] / "docs" / "_ext")


@pytest.fixture(scope="session")
def reference():
    """The extension that generates the reference, as the documentation's build imports it."""
    sys.path.insert(0, EXTENSIONS)
    try:
        import reference  # type: ignore[import-not-found]
    finally:
        sys.path.remove(EXTENSIONS)
    return reference
