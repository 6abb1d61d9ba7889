"""No file imports, directly or by others, a file that imports it.

The layers of packages are a contract of import-linter in pyproject.toml (`make lint`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

grimp = pytest.importorskip("grimp", reason="needs the package import-linter")


def cycles(package: str) -> list[list[str]]:
    """Groups of files that import each other, counting imports in functions and for types."""
    graph = grimp.build_graph(package, exclude_type_checking_imports=False, cache_dir=None)
    modules = sorted(graph.modules)
    number = {module: i for i, module in enumerate(modules)}
    edges = np.zeros((len(modules), len(modules)), bool)
    for module in modules:
        for imported in graph.find_modules_directly_imported_by(module):
            edges[number[module], number[imported]] = True
    assert edges.any()
    _, group = connected_components(csr_matrix(edges), connection="strong")
    sizes = np.bincount(group)
    return [
        [module for module in modules if group[number[module]] == i]
        for i in np.flatnonzero(sizes > 1)
    ]


def test_no_file_of_pyfau_is_in_a_cycle() -> None:
    assert cycles("pyfau") == []


@pytest.mark.parametrize(
    "text",
    [
        "import ring.one\n",
        "def later():\n    from ring.one import value\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ring.one import value\n",
    ],
)
def test_every_kind_of_import_is_seen(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ring"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text("import ring.two\nvalue = 1\n")
    (folder / "two.py").write_text("import ring.three\n")
    (folder / "three.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert cycles("ring") == [["ring.one", "ring.three", "ring.two"]]
