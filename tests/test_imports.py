"""The order of the areas: a module imports from its own area and from those before it, and nothing goes in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import monai_fetalkd

CORE = [
    "layouts",
    "outputs",
    "losses",
    "taps",
    "networks",
    "inferers",
    "teachers",
    "targets",
    "unlabelled",
    "handlers",
    "engines",
]
CORE += ["bundle", "active_learning"]
ORDER = ["utils", "", *CORE, "ultrasound", "evaluation", "deployment", "commands", "__main__"]
ROOT = Path(monai_fetalkd.__file__).parent
REQUIRED = {"torch", "monai", "ignite", "numpy", "packaging"}  # by a plain install; packaging comes with ignite


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(module: str) -> Iterator[str]:
    """The modules that a module imports by name, wherever it does."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for name in (f"{source}.{alias.name}" for alias in node.names):
                yield name if name in FILES else source


def area(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_from_its_area_and_those_before_it(module):
    own = ORDER.index(area(module))
    for name in imports(module):
        if name in FILES:
            assert ORDER.index(area(name)) <= own, f"{module} imports {name}"


def test_no_imports_go_in_a_circle():
    graph = {module: {name for name in imports(module) if name in FILES and name != module} for module in FILES}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", [module for module in FILES if area(module) in ("utils", *CORE)])
def test_the_core_needs_what_a_plain_install_brings(module):
    outside = {name.partition(".")[0] for name in imports(module)} - sys.stdlib_module_names - {"monai_fetalkd"}
    assert outside <= REQUIRED


def test_the_losses_need_torch_alone_and_import_nothing_that_torch_does_not():
    code = """
import sys, torch
torch_brings = set(sys.modules)
for name in ("monai", "ignite", "scipy", "PIL", "sklearn", "tqdm"):
    sys.modules[name] = None
import monai_fetalkd.losses, monai_fetalkd.taps
new = {name.partition(".")[0] for name in set(sys.modules) - torch_brings if sys.modules[name]}
print(*sorted(new - sys.stdlib_module_names))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["monai_fetalkd"]


@pytest.mark.parametrize("module", ["datalist", "check"])
def test_lists_of_frames_need_neither_torch_nor_monai(module):
    code = f"import sys, monai_fetalkd.ultrasound.data.{module}; print(*{{'torch', 'monai'}} & sys.modules.keys())"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == []
