"""Names of action units."""

from __future__ import annotations

import pytest

from pyfau.aus import AU_NAMES, au_name, full_name
from pyfau.weights.official_frames import opengraphau_config


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("AU12", "AU12 lip corner puller"),
        ("AU12L", "AU12L lip corner puller, left"),
        ("AU12R", "AU12R lip corner puller, right"),
        ("AU39", "AU39 nostril compressor"),
        ("AU99", "AU99"),
        ("AU12X", "AU12X"),
        ("smile", "smile"),
    ],
)
def test_full_names(column: str, name: str) -> None:
    assert full_name(column) == name


def test_columns() -> None:
    assert [au_name(6), au_name(6, "left"), au_name(12, "right")] == ["AU06", "AU06L", "AU12R"]


def test_every_output_of_the_largest_set_has_a_name() -> None:
    outputs = opengraphau_config("resnet18", 1).outputs
    assert len({output.column for output in outputs}) == 41
    assert {output.column[:4] for output in outputs} <= AU_NAMES.keys()
