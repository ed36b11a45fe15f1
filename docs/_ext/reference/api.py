"""The public names of Python: what a module lists in `__all__`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import softcxl
from reference.text import docstring, first_sentence, table


def page() -> str:
    parts = ["# Python", "What a module lists in `__all__` is public; the rest may change without notice."]
    for module in modules():
        parts.append(f"## {module.__name__}\n\n{docstring(module)}")
        values = []
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                parts.append(f"### {_title(name, thing)}\n\n{docstring(thing)}")
                members = [(f"`{one}`", first_sentence(value)) for one, value in _members(thing)]
                if members:
                    parts.append(table(("Member", "Meaning"), members))
            elif not inspect.ismodule(thing):
                values.append((f"`{name}`", _shortened(thing)))
        if values:
            parts.append(table(("Value", ""), values))
    return "\n\n".join(parts)


def modules() -> Iterator[ModuleType]:
    """Every module that lists public names, softcxl.spec aside: its declarations have pages of their own."""
    names = [found.name for found in pkgutil.walk_packages(softcxl.__path__, "softcxl.")]
    for name in ["softcxl", *names]:
        if name.startswith("softcxl.spec") or name.endswith("__main__"):
            continue
        module = importlib.import_module(name)
        if hasattr(module, "__all__"):
            yield module


def _title(name: str, thing: object) -> str:
    try:
        signature = str(inspect.signature(thing))  # type: ignore[arg-type]
    except (ValueError, TypeError):
        signature = ""
    return name if inspect.isclass(thing) or len(signature) > 60 else f"{name}{signature}"


def _public(thing: type) -> bool:
    return thing.__name__ in getattr(importlib.import_module(thing.__module__), "__all__", ())


def _members(thing: object) -> Iterator[tuple[str, object]]:
    if not inspect.isclass(thing) or issubclass(thing, BaseException):
        return
    found = dict(vars(thing))
    for base in thing.__mro__[1:]:
        # What the pool's classes have from those that are public nowhere, among them the parts that are written in C
        if base.__module__.startswith("softcxl.pool.") and not _public(base):
            found |= {name: value for name, value in vars(base).items() if name not in found}
    for name, value in found.items():
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not name.startswith("_") and (inspect.isroutine(plain) or isinstance(plain, property)):
            yield name, plain


def _shortened(thing: object) -> str:
    text = repr(thing)
    return f"`{text}`" if len(text) < 80 and "`" not in text else f"a `{type(thing).__name__}`"
