"""The documentation site: `scripts/docs` builds it from the Markdown pages of the repository and the docstrings.

The pages are plain Markdown with relative links, so that they also read well where they are stored. What only the
site needs is added here while a page is read: the navigation, from the links of docs/index.md, and the reference,
from the tables of docs/api.
"""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from sphinx.ext.napoleon import Config, GoogleDocstring

ROOT = Path(__file__).parents[2]
PAGES = {"docs", "config", "models"}
"""Folders with pages; nothing else is walked."""

project = "pbt"
author = "The pbt authors"
project_copyright = "The pbt authors"
release = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "config/**", "models/**"]
exclude_patterns = [
    *(entry.name for entry in ROOT.iterdir() if entry.is_dir() and entry.name not in PAGES),
    ".github",
]
nitpicky = True
nitpick_ignore_regex = [
    # Without a network there is no index of these, and types in signatures that are not public have no page.
    (r"py:class", r"pbt\..*|\w+|tuple\[str"),
    (r"py:.*", r"(collections|datetime|os|jax|matplotlib|numbers|numpy|pandas|pathlib|torch|types|typing)\..*"),
]
highlight_language = "text"
default_role = "code"
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"pbt {release}"
html_static_path = ["static"]
html_css_files = ["pbt.css"]
templates_path = ["templates"]
html_additional_pages = {"index": "redirect.html"}
html_copy_source = False
html_show_sourcelink = False
copybutton_exclude = ".linenos, .gp, .go"


def navigation(text: str) -> str:
    """The page with a hidden table of contents for each of its sections that links to other pages."""
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    trees = []
    for section in sections:
        links = dict.fromkeys(re.findall(r"\]\(([^):#]+)\.md\)", section))
        if links:
            trees.append("\n".join([f"```{{toctree}}\n:hidden:\n:caption: {section.splitlines()[0]}\n", *links, "```"]))
    return "\n\n".join([text, *trees, ""])


def directive(name: str) -> str:
    """The directive that documents a public name."""
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    if inspect.isclass(found):
        kind = "exception" if issubclass(found, BaseException) else "class"
        return f".. auto{kind}:: {name}\n   :members:\n"
    return (
        f".. autofunction:: {name}\n"
        if callable(found) and hasattr(found, "__name__")
        else f".. autodata:: {name}\n   :no-value:\n"
    )


def reference(text: str) -> str:
    """The page with links in its tables of names, and with the documentation of each name below."""
    row = r"^\| `(pbt\.[\w.]+)` \|"
    names = re.findall(row, text, re.MULTILINE)
    linked = re.sub(row, lambda found: f"| {{py:obj}}`{found[1]}` |", text, flags=re.MULTILINE)
    return "\n".join([linked, "\n## Reference\n", "```{eval-rst}", *map(directive, names), "```", ""])


def read_source(_: Any, name: str, source: list[str]) -> None:
    """Add to a page what only the site has."""
    if name == root_doc:
        source[0] = navigation(source[0])
    elif name.startswith("docs/api/"):
        source[0] = reference(source[0])


def read_docstring(app: Any, what: str, name: str, found: object, options: Any, lines: list[str]) -> None:
    """Turn a docstring in Google style, with fenced code, into reStructuredText."""
    fenced, text = False, []
    for line in lines:
        if line.strip().startswith("```"):
            fenced = not fenced
            text += [line.replace("```python", ".. code-block:: python") if fenced else "", ""]
        else:
            text.append(f"   {line}" if fenced and line else line)
    if what not in {"attribute", "data"}:  # where napoleon reads "the seed; None: drawn" as a type and its description
        kind = "method" if what == "property" else what
        text = GoogleDocstring(text, Config(), app, kind, name, found, options).lines()
    if what == "data" and (inspect.getdoc(found) or "") == (inspect.getdoc(type(found)) or ""):
        text = []  # a constant has the docstring of its type; its purpose is in the table of the page
    lines[:] = text


def read_signature(*event: Any) -> tuple[str | None, str | None]:
    """Write defaults that are objects so that Sphinx can parse the signature."""
    *_, signature, returned = event
    named = re.sub(r"<function (\w+)[^<>]*>", r"\1", signature or "")
    return re.sub(r"<[^<>]+>", "...", named) or None, returned


def skip_member(_: Any, __: str, ___: str, found: object, ____: bool, _____: object) -> bool | None:
    """Leave out the fields of named tuples, which their class documents, and what scikit-learn adds to a class."""
    added = str(getattr(found, "__module__", "")).startswith("sklearn.")
    return True if added or type(found).__name__ == "_tuplegetter" else None


def setup(app: Any) -> dict[str, Any]:
    """Connect the functions above."""
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", read_signature)
    app.connect("autodoc-skip-member", skip_member)
    return {"parallel_read_safe": True}
