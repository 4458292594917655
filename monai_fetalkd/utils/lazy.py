"""Modules of a package imported when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

__all__ = ["lazy_modules"]


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
