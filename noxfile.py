"""Lanes of tests for the versions that setup.cfg promises; docs/versions.md says which have been run.

nox --list
nox -s runtime-3.13
"""

from __future__ import annotations

import configparser

import nox

PYTHONS = ("3.11", "3.12", "3.13")
# what needs a plain install alone: torch, MONAI, ignite and numpy
CORE = ("losses", "targets", "engines", "handlers", "test_inferers.py", "test_layouts.py", "test_networks.py")
CORE += ("test_outputs.py", "test_taps.py", "test_taps_stop.py", "test_teachers.py")
TORCH_FREE = ("deployment/runtime", "ultrasound/frames", "evaluation/scores")
AGAINST_MONAI = ("preprocessing", "environment")  # tests of the runtime that compare it with MONAI and the phantom

nox.options.default_venv_backend = "uv"  # pip does not find the lowest versions within minutes
nox.options.sessions = ["pinned"]
nox.options.error_on_missing_interpreters = True


def requirements(*extras: str, core: bool = True) -> list[str]:
    """What setup.cfg asks for: the core, and these extras with those that they name."""
    config = configparser.ConfigParser()  # resolves %(name)s within the section
    config.read("setup.cfg")
    texts = [config["options.extras_require"][extra] for extra in extras]
    if core:
        texts.insert(0, config["options"]["install_requires"])
    return list(dict.fromkeys(line for text in texts for line in text.split("\n") if line))


def run_tests(session: nox.Session, *arguments: str) -> None:
    """Install the project itself, and run the tests that these arguments name, or those that nox is given."""
    session.install("--no-deps", "-e", ".")
    session.run("python", "-m", "pytest", "-q", *(session.posargs or arguments))


@nox.session(python=PYTHONS)
def pinned(session: nox.Session) -> None:
    """The default suite with constraints.txt."""
    session.install("-c", "constraints.txt", *requirements("test"))
    run_tests(session)


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The default suite with the newest versions that there are."""
    session.install("--upgrade", *requirements("test"))
    run_tests(session)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The default suite with the least versions of setup.cfg, and of what they need the newest that fit."""
    session.install("--resolution", "lowest-direct", *requirements("test"))
    run_tests(session)


@nox.session(python=PYTHONS)
def core(session: nox.Session) -> None:
    """The core with constraints.txt, on what a plain install brings and the tests themselves need."""
    tools = ("pytest", "cloudpickle", "einops", "onnx", "onnxscript", "tensorboard")
    session.install("-c", "constraints.txt", *requirements(), *tools)
    run_tests(session, *(f"tests/{name}" for name in CORE))


@nox.session(python=PYTHONS)
def runtime(session: nox.Session) -> None:
    """What needs neither torch nor MONAI, where neither is installed."""
    tools = ("numpy", "onnx", "jsonschema", "pytest")
    session.install("-c", "constraints.txt", *tools, *requirements("frames", "runtime", core=False))
    session.run("python", "-c", "import torch", success_codes=[1], silent=True)
    ignored = [f"--ignore=tests/deployment/runtime/test_{name}.py" for name in AGAINST_MONAI]
    run_tests(session, *(f"tests/{name}" for name in TORCH_FREE), *ignored)
