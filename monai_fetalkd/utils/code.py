"""The code that classes and functions run: own modules by their source, installed packages by their version."""

from __future__ import annotations

import ast
import dis
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

__all__ = ["code_of"]


def code_of(objects: Iterable[Any]) -> dict[str, str]:
    """Find the code that runs when these objects are used; see :func:`monai_fetalkd.utils.hashing.hash_of_code`.

    Args:
        objects: classes, functions, or other objects, which stand for their classes.

    Returns:
        A hash by the name of a module, class, function or constant, and a version by the name of a package.
    """
    found = _Found()
    for value in objects:
        found.add(value)
    return found.code


class _Found:
    def __init__(self) -> None:
        self.code: dict[str, str] = {}

    def add(self, value: Any) -> None:
        if isinstance(value, MethodType):
            value = value.__func__
        if not isinstance(value, (type, FunctionType)):
            generated = getattr(value, "code", None)  # of a TorchScript or an FX module: its class has none of its own
            if isinstance(generated, str):
                self.code[f"generated {_hash(generated)}"] = ""
            value = type(value)
        module = value.__module__
        if module != "__main__" and (_is_foreign(module) or _file_of(module)):
            self._add_module(module)
        else:
            self._add_definition(f"{module}.{value.__qualname__}", value)

    def _add_module(self, name: str) -> None:
        pending = [name]
        while pending:
            name = pending.pop()
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or name in self.code:
                continue
            if installed := _installed(top):
                self.code[top] = installed
            elif file := _file_of(name):
                source = file.read_bytes()
                self.code[name] = _hash(source)
                pending += _imports(source, name if file.name == "__init__.py" else name.rpartition(".")[0])

    def _add_definition(self, name: str, value: type | FunctionType) -> None:
        """Add what no file holds, or a file of which only a part counts."""
        if name in self.code:
            return
        self.code[name] = ""  # before the rest, which may name it in turn
        parts = []
        if isinstance(value, type):
            constants = {name: part for name, part in vars(value).items() if not name.startswith("__")}
            parts.append(_written(constants))
            for base in value.__bases__:
                self.add(base)
        for function in _functions(value):
            parts += [_described(function.__code__), _written(function.__defaults__), _written(function.__kwdefaults__)]
            for imported, global_name in _names(function.__code__):
                if imported:
                    self._add_module(imported)
                elif global_name in function.__globals__:
                    self._add_global(function.__module__, global_name, function.__globals__[global_name])
        self.code[name] = _hash("\n".join(parts))

    def _add_global(self, module: str, name: str, value: Any) -> None:
        if isinstance(value, ModuleType):
            self._add_module(value.__name__)
        elif isinstance(value, (type, FunctionType, MethodType)):
            self.add(value)
        elif written := _written(value):
            self.code[f"{module}.{name}"] = _hash(written)
        else:
            self.add(value)


def _is_foreign(module: str) -> bool:
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names or bool(_installed(top))


@cache
def _distributions() -> dict[str, list[str]]:
    return {name: sorted(set(found)) for name, found in packages_distributions().items()}


@cache
def _installed(top: str) -> str:
    """The version of an installed package; empty for own code, and for what is installed to be edited."""
    folders = [str(file)] if (file := _file_of(top)) else _search_path(top)
    if not any({"site-packages", "dist-packages"} & set(Path(folder).parts) for folder in folders):
        return ""
    return " ".join(f"{name} {version(name)}" for name in _distributions().get(top, []))


def _file_of(module: str) -> Path | None:
    """The file of a module, found without importing it."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded is not None:
        return Path(loaded) if Path(loaded).is_file() else None
    top, *rest = module.split(".")
    if not rest:
        specification = None if module in sys.modules else importlib.util.find_spec(module)
        origin = Path(specification.origin or "") if specification is not None else None
        return origin if origin is not None and origin.is_file() else None
    for folder in _search_path(top):
        for candidate in (Path(folder, *rest, "__init__.py"), Path(folder, *rest).with_suffix(".py")):
            if candidate.is_file():
                return candidate
    return None


def _search_path(top: str) -> list[str]:
    if top in sys.modules:
        return list(getattr(sys.modules[top], "__path__", []))
    specification = importlib.util.find_spec(top)
    return list(specification.submodule_search_locations or []) if specification is not None else []


def _imports(source: bytes, package: str) -> Iterator[str]:
    """The modules that the source of a module in this package imports, in functions too."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # an extension module, or one that nobody can import
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield base if _is_foreign(base) or _file_of(submodule) is None else submodule


def _functions(value: type | FunctionType) -> Iterator[FunctionType]:
    members = vars(value).values() if isinstance(value, type) else [value]
    for member in members:
        for part in (member, *(getattr(member, name, None) for name in ("__func__", "fget", "fset", "fdel"))):
            if isinstance(part, FunctionType):
                yield part


def _names(code: CodeType) -> Iterator[tuple[str, str]]:
    """The modules that a function imports, and the global names that it reads: one of each pair is empty."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            yield instruction.argval, ""
        elif instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield "", instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _described(code: CodeType) -> str:
    # without file and line numbers, which differ from one run of a notebook to the next
    constants = [_described(part) if isinstance(part, CodeType) else _written(part) for part in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _written(value: Any) -> str:
    """Plain constants as text, in one order; empty for anything else."""
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None), type(...))):
        return repr(value)
    if isinstance(value, (tuple, list, set, frozenset)):
        texts = [_written(part) for part in value]
        return f"{type(value).__name__} {texts if isinstance(value, (tuple, list)) else sorted(texts)}"
    if isinstance(value, dict):
        return f"dict {sorted((_written(key), _written(part)) for key, part in value.items())}"
    return ""


def _hash(data: str | bytes) -> str:
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode(errors="surrogatepass")).hexdigest()
