"""The site: `make docs`. The source folder is the repository: links work here as they do on the forge."""

from __future__ import annotations

from importlib.metadata import version as _version

project = "pyfau"
author = copyright = "the pyfau authors"
version = release = _version("pyfau")

root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "pyfau/assets/*/README.md",
    "training/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "THIRD_PARTY_NOTICES.md",
]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
default_role = "literal"  # docstrings have `names` in single backticks
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"  # no web fonts, no scripts from elsewhere
html_title = f"pyfau {version}"
html_theme_options = {"navigation_with_keys": True}
html_favicon = "favicon.svg"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_extra_path = ["root"]  # the address of the folder leads to docs/index.html
