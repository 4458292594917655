"""The site builds without a warning and loads nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.docs


@pytest.fixture(scope="module")
def site(project_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=project_dir, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_no_page_loads_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]+src=\"(?:https?:)?//", text), page
        assert not re.findall(r"<link[^>]+rel=\"(?:stylesheet|preconnect|preload)\"[^>]+href=\"(?:https?:)?//", text), (
            page
        )


def test_links_between_files_of_the_repository_are_links_between_pages(site):
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in ("results.html", "tutorials/losses.html", "recipe.html", "changelog.html", "security.html"):
        assert f'href="{page}' in home
        assert (site / page).is_file()


def test_a_tutorial_is_offered_as_a_notebook(site):
    page = (site / "tutorials" / "losses.html").read_text(encoding="utf-8")
    assert 'href="losses.ipynb"' in page
    assert {cell["cell_type"] for cell in json.loads((site / "tutorials" / "losses.ipynb").read_text())["cells"]} == {
        "code",
        "markdown",
    }


def test_the_reference_shows_formulas_examples_and_links(site):
    page = (site / "api" / "core.html").read_text(encoding="utf-8")
    soft = page[page.index('id="monai_fetalkd.losses.SoftTargetLoss"') :]
    assert "<math" in soft
    assert "tensor(" in soft
    assert not re.findall(r":(?:class|func|meth|mod|math):|\.\. math::", page)


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("See :class:`~torch.nn.Linear`.", "<code>Linear</code>"),
        ("See :func:`a.b`.", "<code>a.b</code>"),
        ("The power :math:`p\n  + 1`.", "The power $p + 1$."),
        ("As\n\n.. math::\n    x = 1\n\nfollows.", "$$\nx = 1\n$$"),
        ("As\n\n.. math::\n    x &= 1 \\\\\n    y &= 2\n", "\\begin{align*}"),
        (".. code-block:: json\n\n    {}\n", "```json\n{}\n```"),
        ("Example:\n    >>> 1", "Examples:\n    >>> 1"),
    ],
)
def test_docstrings_are_read_as_markdown(project_dir, docstring, expected):
    spec = importlib.util.spec_from_file_location("sphinx_roles", project_dir / "docs" / "sphinx_roles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert expected in module.markdown(docstring)
