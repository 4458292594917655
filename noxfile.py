"""Lanes of tests for the versions that setup.cfg promises; docs/versions.md says which have been run.

nox --list
nox -s runtime-3.13
"""

from __future__ import annotations

import configparser
import re

import nox

PYTHONS = ("3.11", "3.12", "3.13")
TORCH_FREE = ("tests/deployment/runtime", "tests/ultrasound/frames", "tests/evaluation/scores")
AGAINST_MONAI = ("preprocessing", "environment")  # tests of the runtime that compare it with MONAI and the phantom

nox.options.default_venv_backend = "venv"
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


def suite(session: nox.Session, *versions: str) -> None:
    """Install the project with these versions, and run the default suite on one thread."""
    session.install(*versions)
    session.install("--no-deps", "-e", ".")
    session.run("python", "-m", "pytest", "-q", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python=PYTHONS)
def pinned(session: nox.Session) -> None:
    """The default suite with constraints.txt."""
    suite(session, "-c", "constraints.txt", *requirements("test"))


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The default suite with the newest versions that there are."""
    suite(session, "--upgrade", *requirements("test"))


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The default suite with the least versions of setup.cfg."""
    suite(session, *(re.sub(">=", "==", requirement) for requirement in requirements("test")))


@nox.session(python=PYTHONS)
def runtime(session: nox.Session) -> None:
    """What needs neither torch nor MONAI, where neither is installed."""
    tools = ("numpy", "onnx", "jsonschema", "pytest")
    session.install("-c", "constraints.txt", *tools, *requirements("frames", "runtime", core=False))
    session.install("--no-deps", ".")
    session.run("python", "-c", "import torch", success_codes=[1], silent=True)
    ignored = [f"--ignore=tests/deployment/runtime/test_{name}.py" for name in AGAINST_MONAI]
    session.run("python", "-m", "pytest", "-q", *TORCH_FREE, *ignored)
