"""Modules that answer any import: what a client's file imports and the two calls do not need."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


class _Anything(type):
    """A class of any name: to be named in an annotation, inherited from, called, subscripted, or looked into."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _anything(name)

    def __getitem__(cls, item: Any) -> Any:
        return cls


def _anything(name: str) -> Any:
    return _Anything(name, (), {"__init__": lambda self, *args, **kwargs: None})


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _anything(name)
        setattr(self, name, value)
        return value


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers the import of everything under ``roots`` but ``real``, which is read from the checkout.

    packages: the folders in which the real modules of a package are found; its own __init__ does not run.
    """

    def __init__(
        self, roots: Iterable[str], packages: Mapping[str, Path], real: Iterable[str] = ()
    ) -> None:
        self._roots, self._packages, self._real = tuple(roots), dict(packages), tuple(real)

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not any(f"{fullname}.".startswith(f"{root}.") for root in self._roots):
            return None
        if fullname in self._packages:
            spec = importlib.machinery.ModuleSpec(fullname, self, is_package=True)
            spec.submodule_search_locations = [str(self._packages[fullname])]
            return spec
        if any(f"{fullname}.".startswith(f"{name}.") for name in self._real):
            return None  # the file itself
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def install(stubs: Stubs) -> None:
    """Once per process and client: an import that happened is not made again."""
    sys.meta_path.insert(0, stubs)
