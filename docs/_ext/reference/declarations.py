"""Every declared register, block and record of softcxl.spec: clause, fields, access laws."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType

import softcxl.spec
from reference.text import docstring
from softcxl.wire import Block, Record, Register, describe

Declared = type[Register] | type[Block] | type[Record]


def pages() -> dict[str, Callable[[], str]]:
    """A page for each module of softcxl.spec that declares something."""
    return {page_name(module): functools.partial(_page, module) for module in modules() if declared(module)}


def modules() -> Iterator[ModuleType]:
    """All modules of softcxl.spec, in the order of their names."""
    for found in pkgutil.walk_packages(softcxl.spec.__path__, "softcxl.spec."):
        yield importlib.import_module(found.name)


def declared(module: ModuleType) -> list[Declared]:
    """What a module itself declares, in its order."""
    return [
        thing
        for label, thing in vars(module).items()
        if isinstance(thing, type)
        and issubclass(thing, Register | Block | Record)
        and thing.__module__ == module.__name__
        and not label.startswith("_")
    ]


def page_name(module: ModuleType) -> str:
    """The name of a module's page: `spec-cxl-hdm`."""
    return module.__name__.removeprefix("softcxl.").replace(".", "-").replace("_", "-")


def _page(module: ModuleType) -> str:
    title = module.__name__.removeprefix("softcxl.")
    parts = [f"# {title}", docstring(module)]
    parts += [f"## {thing.__name__}\n\n{describe(thing)}" for thing in declared(module)]
    return "\n\n".join(parts)
