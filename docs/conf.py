"""Configuration of the documentation site; `make docs` builds it.

Sphinx's source folder is the repository, so links to files outside docs/ work on the site and on
the forge.
"""

from __future__ import annotations

import pyfau

project = "pyfau"
author = copyright = "the pyfau authors"
version = release = pyfau.__version__

root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "pyfau/assets/*/README.md",
    "training/*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "THIRD_PARTY_NOTICES.md",
]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
default_role = "literal"  # docstrings use single backticks for names
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"  # loads no fonts and no scripts from other servers
html_title = f"pyfau {version}"
html_theme_options = {"navigation_with_keys": True}
html_favicon = "favicon.svg"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_extra_path = ["root"]  # redirects the folder's address to docs/index.html
