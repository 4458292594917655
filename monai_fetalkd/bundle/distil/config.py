"""Reading a bundle's config: its components, what they refer to, and where an argument is written."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple

from monai.bundle import ConfigComponent, ConfigParser

from monai_fetalkd.utils.machine import first_line

__all__ = ["Component", "Config", "importable", "read_file"]

_REFERENCE = re.compile(r"[@%](#*[A-Za-z_]\w*(?:(?:#|::)\w+)*)")
_RESERVED = ("_target_", "_mode_", "_desc_", "_requires_", "_disabled_")


class Component(NamedTuple):
    """One item with a ``_target_``.

    Attributes:
        id: its id.
        target: what it calls: a class or a function; None where it cannot be found, such as one of a package that is
            not installed.
        name: how the config names it.
        arguments: id of each argument.
        config: where all of these ids are.
        problem: why the target cannot be found, where that is known.
    """

    id: str
    target: Any
    name: str
    arguments: dict[str, str]
    config: Config
    problem: str = ""

    def value(self, key: str) -> Any:
        """An argument evaluated and instantiated."""
        return self.config.value(self.arguments[key])


class Config:
    """One config of a bundle.

    Args:
        path: the file, JSON or YAML.
        root: the bundle, as its ``bundle_root``.
        raw: its content, where it is not that of the file.

    Attributes:
        path: the file.
        root: the bundle.
        raw: its content as it is written.

    Raises:
        ValueError: when the file cannot be read.
    """

    def __init__(self, path: Path, root: Path, raw: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.root = root
        self.raw: dict[str, Any] = read_file(path) if raw is None else dict(raw)
        self._parser = ConfigParser(copy.deepcopy(self.raw))
        metadata = path.with_name("metadata.json")
        if metadata.is_file():
            self._parser.read_meta(read_file(metadata))
        self._parser["bundle_root"] = str(root)
        self._parser.resolve_macro_and_relative_ids()

    def replaced(self, id: str, item: Any) -> Config:
        """The same config with another item under this id."""
        parser = ConfigParser(copy.deepcopy(self.raw))
        parser[id] = item
        return Config(self.path, self.root, parser.get())

    def get(self, id: str) -> Any:
        """The item as it is written, with macros and relative ids resolved; None where there is none."""
        return self._parser.get(id)

    def value(self, id: str) -> Any:
        """The item evaluated and instantiated."""
        return self._parser.get_parsed_content(id)

    def components(self) -> Iterator[Component]:
        """All components, those inside others after them."""
        for id, item in self._items("", self._parser.get()):
            if isinstance(item, Mapping) and "_target_" in item:
                yield self._component(id, item)

    def component(self, id: str) -> Component | None:
        """The component of this id, or that which the item there refers to, such as ``$@network_def.to(@device)``.

        Raises:
            ValueError: when a reference leads nowhere, or in a circle.
        """
        return self._found(id, ())

    def _found(self, id: str, above: tuple[str, ...]) -> Component | None:
        if id in above:
            raise ValueError(f"'{self.path}' refers in a circle: {' to '.join((*above, id))}.")
        if above and not id.startswith("_") and id not in self._parser:  # MONAI adds what begins so
            raise ValueError(f"'{above[-1]}' of '{self.path}' refers to '{id}', which is not there.")
        item = self.get(id)
        if isinstance(item, Mapping) and "_target_" in item:
            return self._component(id, item)
        found = (self._found(other, (*above, id)) for other in self.references(id))
        return next((one for one in found if one is not None), None)

    def references(self, id: str) -> list[str]:
        """The ids that a string refers to, in their order."""
        item = self.get(id)
        return _referred(item, id) if isinstance(item, str) else []

    def written(self, *ids: str) -> dict[str, Any]:
        """All plain values and strings that these items are made of, as the file has them, by id."""
        found: dict[str, Any] = {}
        seen: set[str] = set()
        waiting = list(ids)
        raw = ConfigParser(copy.deepcopy(self.raw))
        while waiting:
            id = waiting.pop()
            if id in seen:
                continue
            seen.add(id)
            # what a macro copies is written where it is copied from
            for sub, item in self._items(id, raw.get(id)):
                if not isinstance(item, (Mapping, list)):
                    found[sub] = item
                if isinstance(item, str):
                    waiting.extend(_referred(item, sub))
        return found

    def _component(self, id: str, item: Mapping[str, Any]) -> Component:
        arguments = {key: f"{id}#{key}" for key in item if key not in _RESERVED}
        name = item["_target_"]
        referred = _referred(name, id) if isinstance(name, str) else []
        if referred:  # a component that another one completes
            other = self.component(referred[0])
            if other is not None:
                return Component(id, other.target, other.name, {**other.arguments, **arguments}, self)
            return Component(id, None, str(name), arguments, self)
        try:
            path = ConfigComponent(dict(item)).resolve_module_name()
            target = locate(path) if isinstance(path, str) else path
        except Exception as error:  # a module of the bundle may fail in any way when it is imported
            return Component(id, None, str(name), arguments, self, first_line(error))
        return Component(id, target, str(name), arguments, self)

    def _items(self, id: str, item: Any) -> Iterator[tuple[str, Any]]:
        yield id, item
        pairs = item.items() if isinstance(item, Mapping) else enumerate(item) if isinstance(item, list) else ()
        for key, value in pairs:
            yield from self._items(f"{id}#{key}" if id else str(key), value)


def read_file(path: Path) -> dict[str, Any]:
    """The content of a config file, JSON or YAML.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no config file '{path}'.")
    try:
        content = ConfigParser.load_config_file(str(path))
    except Exception as error:  # PyYAML and json have kinds of their own
        raise ValueError(f"'{path}' cannot be read as a config: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' is no config: it holds a {type(content).__name__}, not a mapping.")
    return content


@contextmanager
def importable(root: Path) -> Iterator[None]:
    """Let the modules of a bundle be found, such as ``scripts``, then forget them: others are called the same."""
    known = set(sys.modules)
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        own = {path.stem for path in root.iterdir()} if root.is_dir() else set()
        for name in set(sys.modules) - known:
            if name.split(".")[0] in own:
                del sys.modules[name]


def _referred(text: str, id: str) -> list[str]:
    resolved = ConfigParser.resolve_relative_ids(id.replace("#", "::"), text) if "#" in text or "::" in text else text
    return [match.replace("::", "#") for match in _REFERENCE.findall(resolved)]
