"""Reads the reStructuredText in docstrings (roles, formulas, directives) as Markdown, for mkdocstrings.

The docstrings are in Google style with the roles of Sphinx, as are those of torch and MONAI.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`([^`]+)`")
_MATH = re.compile(r":math:`([^`]+)`")
_BLOCK = re.compile(r"^( *)\.\. (math|code-block)::([^\n]*)\n((?:\n|\1 +[^\n]*\n)+)", re.MULTILINE)


class SphinxRoles(Extension):
    """Rewrites the docstring of each object when it is read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """The text with links, formulas and code blocks of Markdown."""
    text = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)  # the section that griffe knows
    text = _BLOCK.sub(_block, text + "\n")
    text = _MATH.sub(lambda match: f"${' '.join(match[1].split())}$", text)
    return _ROLE.sub(_link, text).rstrip()


def _link(match: re.Match[str]) -> str:
    name = match[1].removeprefix("~")
    shown = name.rpartition(".")[2] if match[1].startswith("~") else name
    # optional: objects of other packages are not on this site
    return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'


def _block(match: re.Match[str]) -> str:
    indent, kind, argument, body = match.groups()
    body = textwrap.dedent(body).strip("\n")
    if kind == "math":
        # several lines that are aligned stand in one formula
        formula = rf"\begin{{align*}}{body}\end{{align*}}" if r"\\" in body else body
        lines = ["$$", *formula.split("\n"), "$$"]
    else:
        lines = [f"```{argument.strip()}", *body.split("\n"), "```"]
    return "\n" + textwrap.indent("\n".join(lines), indent) + "\n\n"
