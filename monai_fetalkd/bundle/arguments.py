"""Arguments of a run checked before it costs anything: a slip in a name, and a value of another kind."""

from __future__ import annotations

import difflib
import inspect
import os
import pydoc
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.config_item import ConfigComponent, ConfigExpression
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from monai_fetalkd.bundle.argument_kinds import kind_of
from monai_fetalkd.bundle.process import is_command, told_plainly

__all__ = ["check_arguments", "check_names", "read_values", "set_items"]

_SEP = ReferenceResolver.sep
# of the signature of monai.bundle's "run"; they are no items, but what is meant by a slip may be one of them
_OPTIONS = ("run_id", "init_id", "final_id", "config_file", "meta_file", "logging_file", "args_file", "tracking")
_ENGINES = {"trainer", "validator", "evaluator"}  # what tracking adds a handler to; no items
# items that MONAI reads itself
_READ_BY_MONAI = {
    "imports",
    *(found["id"] for found in (TrainProperties | InferProperties).values()),
    *(name for settings in DEFAULT_EXP_MGMT_SETTINGS.values() for name in settings["configs"].keys() - _ENGINES),
}


def check_arguments() -> None:
    """Check the arguments of the run that this is called from; the first thing that ``initialize`` of a config does.

    Every item must be used: an argument with a slip in its name would train the defaults. Every value must be of its
    kind, see :func:`read_values`. From here on a command tells errors that the user can mend in one sentence.

    Raises:
        ValueError: when an argument is of no use or no value of its kind.
        RuntimeError: when it is called from elsewhere.
    """
    if is_command():
        sys.excepthook = told_plainly
    workflow = _running_workflow()
    parser, entries = workflow.parser, (workflow.init_id, workflow.run_id, workflow.final_id)
    if workflow.run_id not in parser:
        raise ValueError(f"There is no item '{workflow.run_id}' to run{_near(workflow.run_id, parser.get())}.")
    folders = [workflow.config_root_path]
    if isinstance(root := parser.get("bundle_root"), str):  # a student bundle lies over configs of another
        folders.append(Path(root) / "configs")
    check_names(parser, *folders, entries=entries)
    changes = read_values(parser.get())
    if changes:
        parser.update(changes)
        parser.parse()  # MONAI goes on with the first item only; the others are read from here


def check_names(
    parser: ConfigParser,
    *config_dirs: str | os.PathLike[str],
    entries: Collection[str] = ("initialize", "run", "finalize"),
) -> None:
    """Check that every item of a config is used.

    An item is used when another refers to it, when MONAI reads it, or when it is run. What the config files have may be
    without use, such as the learning rate of an optimizer that was replaced. An argument of a component must be one
    that it takes.

    Args:
        parser: the config.
        config_dirs: the folders of its files.
        entries: items that are run.

    Raises:
        ValueError: when an item is of no use; the message lists near names.

    Example:
        >>> config = {"epochs": 3, "epoch": 5, "run": ["$print(@epochs)"]}
        >>> check_names(ConfigParser(config), "configs")
        Traceback (most recent call last):
        ...
        ValueError: Nothing uses 'epoch' (near names: epochs): correct the name or leave it out.
    """
    parser = ConfigParser(parser.get())  # not the one that runs: it would forget what it has made, and make it again
    parser.resolve_macro_and_relative_ids()
    config = {name: value for name, value in parser.get().items() if not name.startswith("_")}
    used = set(_references(config)) | _READ_BY_MONAI | {entry.replace("#", _SEP) for entry in entries}
    files = [file for folder in config_dirs for file in _files_of(config, folder)]
    slips = [item for item in _unused(config, "", used) if not any(_has(content, item) for content in files)]
    told = [f"'{_shown(item)}'{_near(item, config)}" for item in slips]
    if told:
        correct = "correct the name" if len(told) == 1 else "correct the names"
        raise ValueError(f"Nothing uses {', '.join(told)}: {correct} or leave it out.")
    for item, component in _components(config, ""):
        _check_parameters(item, component, parser)


def read_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check the plain values of a config by the names of their items.

    Expressions and references are left: they are checked where they are used.

    Args:
        config: the config.

    Returns:
        Values that are to replace others, by the id of their item: the text of a folder that the command line has
        taken for a number, a home folder in the place of ``~``, a ``true`` in the place of a word.

    Raises:
        ValueError: when a value is not of the kind of its item.

    Example:
        >>> read_values({"output_dir": 20250101, "teacher": {"epochs": 5}})
        {'output_dir': '20250101'}
    """
    changes = {}
    for item, value, in_component in _plain_values(config, ""):
        kind = kind_of(item)
        if kind is None or (in_component and not (kind.in_components and isinstance(value, str | bool | int | float))):
            continue
        try:
            read = kind.read(item, value)
        except ValueError:
            raise ValueError(f"'{_shown(item)}' must be {kind.what}, not {value!r}.") from None
        if type(read) is not type(value) or read != value:
            changes[item] = read
    return changes


def set_items(parser: ConfigParser, changes: Mapping[str, Any]) -> None:
    """Change items of a config, in sections that are there.

    Args:
        parser: the config.
        changes: value by the id of its item.

    Raises:
        ValueError: when there is no such section; the message lists near names.

    Example:
        >>> set_items(ConfigParser({"teacher": {"epochs": 3}}), {"techer#epochs": 1})
        Traceback (most recent call last):
        ...
        ValueError: There is no section 'techer' for 'techer#epochs' (near names: teacher).
    """
    for item, value in changes.items():
        section = ReferenceResolver.split_id(item, last=True)[0]
        if not isinstance(parser.get(section), dict | list):
            near = _near(section, parser.get()) if section else ""
            raise ValueError(f"There is no section '{_shown(section)}' for '{_shown(item)}'{near}.")
        parser[item] = value


def _running_workflow() -> ConfigWorkflow:
    """The workflow whose config calls; MONAI hands its expressions nothing that leads there."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigWorkflow):
            return caller
        frame = frame.f_back
    raise RuntimeError("check_arguments is called by the 'initialize' of a config that a ConfigWorkflow runs.")


def _references(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from _references(part)
    elif isinstance(config, str):
        yield from ReferenceResolver.match_refs_pattern(config)


def _unused(section: Mapping[str, Any], above: str, used: Collection[str]) -> Iterator[str]:
    """The items that nothing refers to and that refer to nothing: those that do are run, or read, from outside."""
    for name, value in section.items():
        item = f"{above}{name}"
        if item in used or str(name).startswith("_"):
            continue
        if value and isinstance(value, dict) and not ConfigComponent.is_instantiable(value):
            yield from _unused(value, f"{item}{_SEP}", used)
        elif not any(other.startswith(f"{item}{_SEP}") for other in used) and not any(_references(value)):
            yield item


def _files_of(config: Mapping[str, Any], config_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The files of a folder of which a config has all items: MONAI does not keep which ones it was read from."""
    found = []
    for file in sorted(Path(config_dir).glob("*")):
        if file.suffix in (".json", ".yaml", ".yml"):
            with suppress(ValueError):  # another file, that is no config
                found.append(ConfigParser.load_config_file(file))
    return [content for content in found if all(_plain(name).partition(_SEP)[0] in config for name in content)]


def _has(section: Any, item: str) -> bool:
    if not item or not isinstance(section, dict):
        return not item
    for name, inner in section.items():
        known = _plain(name)
        if item == known or item.startswith(f"{known}{_SEP}"):
            return _has(inner, item[len(known) + len(_SEP) :])
    return False


def _plain(name: str) -> str:
    """The id that a file means by a name, which may be merged into what others say."""
    return name.lstrip("+").replace("#", _SEP)


def _components(config: Any, item: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(config, dict | list):
        return
    if isinstance(config, dict) and ConfigComponent.is_instantiable(config):
        yield item, config
    for name, sub_item, inner in ReferenceResolver.iter_subconfigs(item, config):
        if not str(name).startswith("_"):
            yield from _components(inner, sub_item)


def _check_parameters(item: str, component: dict[str, Any], parser: ConfigParser) -> None:
    target = ConfigComponent(config=component, locator=parser.locator).resolve_module_name()
    if ConfigExpression.is_expression(target) or str(target).startswith(ReferenceResolver.ref):
        return
    try:
        found: Any = pydoc.locate(target)
        parameters = inspect.signature(found).parameters
    except (pydoc.ErrorDuringImport, TypeError, ValueError):  # not there, or written in C: instantiation will tell
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in component.keys() - parameters.keys() - ConfigComponent.non_arg_keys:
        near = _listed(difflib.get_close_matches(name, parameters))
        raise ValueError(f"'{_shown(item)}' is a {target.rpartition('.')[2]}, which takes no '{name}'{near}.")


def _plain_values(config: Mapping[str, Any], above: str, in_component: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """Each item that is no section, with its value and whether it is an argument of a component."""
    for name, value in config.items():
        item = f"{above}{name}"
        if str(name).startswith("_") or (isinstance(value, str) and value.startswith(("$", "@", "%"))):
            continue
        if isinstance(value, dict):
            inside = in_component or ConfigComponent.is_instantiable(value)
            yield from _plain_values(value, f"{item}{_SEP}", inside)
        elif not (isinstance(value, list) and any(_references(value))):
            yield item, value, in_component


def _near(item: str, config: Mapping[str, Any]) -> str:
    names = [*_items(config, ""), *_OPTIONS]
    found = difflib.get_close_matches(item, names, n=3)
    if not found:  # max_epochs for train::epochs
        last = item.rpartition(_SEP)[2]
        ends = {name.rpartition(_SEP)[2] for name in names}
        near = difflib.get_close_matches(last, ends, n=1)
        found = [name for name in names if name.rpartition(_SEP)[2] in near]
    return _listed([name for name in found if name != item][:4])


def _items(config: Mapping[str, Any], above: str) -> Iterator[str]:
    for name, value in config.items():
        if str(name).startswith("_"):
            continue
        yield f"{above}{name}"
        if isinstance(value, dict) and not ConfigComponent.is_instantiable(value):
            yield from _items(value, f"{above}{name}{_SEP}")


def _listed(names: Collection[str]) -> str:
    return f" (near names: {', '.join(map(_shown, names))})" if names else ""


def _shown(item: str) -> str:
    return item.replace(_SEP, "#")
