"""What the site needs beyond mkdocs: pages from files outside `docs/`, tutorials from scripts, formulas as MathML.

mkdocs calls the functions named ``on_*`` (see ``hooks`` in mkdocs.yml).
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

import jupytext
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]
# files of the repository that are pages of the site
_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "bundle/docs/README.md": "recipe.md",
    "bundle/docs/model_card.md": "model_card.md",
    "bundles/fetal_head/docs/README.md": "fetal_head.md",
}
_SOURCES = {page: source for source, page in _PAGES.items()}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere in the repository, and for each tutorial a page and a notebook."""
    added = {page: (_ROOT / source).read_text(encoding="utf-8") for source, page in _PAGES.items()}
    for script in sorted(Path(config.docs_dir, "tutorials").glob("*.py")):
        notebook = jupytext.read(script)
        name = f"tutorials/{script.stem}"
        added[f"{name}.ipynb"] = jupytext.writes(notebook, fmt="ipynb")
        title, *cells = jupytext.writes(notebook, fmt="md").partition("# ")[2].split("\n", 1)
        offer = f"[Notebook]({script.stem}.ipynb){{ download }}, the same as the script `docs/{name}.py`."
        added[f"{name}.md"] = "\n".join([f"# {title}", "", offer, *cells])
    for path, content in added.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages; one to a file that is none is text."""
    here = page.file.src_uri
    source = _SOURCES.get(here, f"docs/{here}")

    def linked(match: re.Match[str]) -> str:
        picture, text, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        uri = _PAGES.get(path, path.removeprefix("docs/"))
        if uri.startswith("tutorials/"):
            uri = uri.replace(".py", ".md")
        if files.get_file_from_path(uri) is None:
            if path.startswith("docs/") or picture:
                return match.group()  # let mkdocs warn of it
            return text
        return f"{picture}[{text}]({posixpath.relpath(uri, posixpath.dirname(here) or '.')}{anchor or ''})"

    return _LINK.sub(linked, markdown)


def on_page_content(html_text: str, **_: Any) -> str:
    """Formulas as MathML, which browsers show without a script."""

    def formula(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        return convert(html.unescape(match[2]).strip().replace(r"\_", "_"), display=display)

    return _FORMULA.sub(formula, html_text)
