"""Modules of a package, or names in them, imported when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

__all__ = ["lazy_modules", "lazy_names"]


def lazy_modules(package: str) -> Callable[[str], ModuleType]:
    """The ``__getattr__`` of a package whose modules are imported at their first use.

    So the package itself costs nothing to import, and a config needs one import for all modules in it.

    Args:
        package: the name of the package.

    Returns:
        A function that imports the module of a name; it raises AttributeError where there is none.

    Example:
        >>> lazy_modules("monai_fetalkd.utils")("markdown").__name__
        'monai_fetalkd.utils.markdown'
    """

    def module_of(name: str) -> ModuleType:
        if not name.startswith("_"):
            try:
                return importlib.import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return module_of


def lazy_names(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package that has names from modules which take long to import.

    Args:
        package: the name of the package.
        modules: its modules, each with the names that the package takes from it.

    Returns:
        A function that imports the module of a name and returns what the name stands for; it raises AttributeError
        where there is none.

    Example:
        >>> lazy_names("monai_fetalkd.utils", {"markdown": ["markdown_table"]})("markdown_table").__name__
        'markdown_table'
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def value_of(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return value_of
