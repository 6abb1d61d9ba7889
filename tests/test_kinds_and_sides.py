"""Kinds and sides of action units through every table, format, figure and page.

The rows have AUs with both kinds (AU12), with an occurrence alone (AU01), with an intensity alone
(AU05), and with sides (AU12L, AU12R).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from test_result import empty_row, face_row

from pyfau import AUResult, read_result
from pyfau.analysis.events import find_events
from pyfau.formats.elan import read_elan
from pyfau.formats.events import read_events
from pyfau.formats.openface import read_openface
from pyfau.formats.pyfeat import read_pyfeat
from pyfau.intensity import FROM_NETWORK
from pyfau.overlay.drawing import draw_overlay
from pyfau.tables.writers import open_writer

AUS = ("AU01", "AU12", "AU05", "AU12L", "AU12R")
FRAMES = 50
GONE = 7  # a frame without a face


def mixed() -> AUResult:
    metadata = {
        "source": "clip.mp4",
        "fps": 25.0,
        "model": "toy",
        "aus": list(AUS),
        "thresholds": dict.fromkeys(AUS, 0.5),
        "intensity": FROM_NETWORK,
    }
    result = AUResult(AUS, metadata, intensity=True)
    rng = np.random.default_rng(0)
    for frame in range(FRAMES):
        scores = rng.random(len(AUS)).astype(np.float32)
        grades = (5 * rng.random(len(AUS))).astype(np.float32)
        scores[AUS.index("AU05")] = np.nan
        grades[[AUS.index(au) for au in ("AU01", "AU12L", "AU12R")]] = np.nan
        row = empty_row(frame) if frame == GONE else face_row(frame)
        is_there = frame != GONE
        nothing = np.full(len(AUS), np.nan, np.float32)
        result.append(
            dataclasses.replace(
                row,
                aus=AUS,
                scores=scores if is_there else nothing,
                intensity=grades if is_there else nothing,
                active=(scores >= 0.5) & is_there,
            )
        )
    return result


def check_same(read: AUResult, written: AUResult) -> None:
    assert read.aus == written.aus
    np.testing.assert_allclose(read.scores, written.scores, atol=1e-6)
    np.testing.assert_array_equal(read.active, written.active)
    assert read.intensities is not None
    np.testing.assert_allclose(read.intensities, written.intensities, atol=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("way", ["whole", "row by row"])
def test_tables(suffix: str, way: str, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    result, path = mixed(), tmp_path / f"a{suffix}"
    if way == "whole":
        getattr(result, f"to_{suffix[1:]}")(path)
    else:
        with open_writer(path, AUS, result.metadata, False, True) as writer:
            for row in result:
                writer.write([row])
    read = read_result(path)
    check_same(read, result)
    table = read.to_dataframe()
    # Nothing is said about the occurrence of an AU that has none, and the other way round.
    assert table["AU05_c"].isna().all()
    assert table["AU01_r"].isna().all()
    assert table["AU12_c"].isna().sum() == table["AU12_r"].isna().sum() == 1
    if suffix == ".csv":
        line = path.read_text().splitlines()[1].split(",")
        header = path.read_text().splitlines()[0].split(",")
        fields = dict(zip(header, line, strict=True))
        assert fields["AU05"] == fields["AU05_c"] == fields["AU12L_r"] == ""
        assert fields["AU12L_c"] in ("0", "1")
    if suffix == ".jsonl":
        assert json.loads(path.read_text().splitlines()[0])["AU05_c"] is None


def test_openface(tmp_path: Path) -> None:
    result = mixed()
    result.to_openface(tmp_path / "of.csv")
    read = read_openface(tmp_path / "of.csv")
    for au in ("AU12", "AU12L", "AU12R"):
        np.testing.assert_array_equal(
            read[f"{au}_c"].fillna(-1), result.to_dataframe()[f"{au}_c"].fillna(-1)
        )
    assert read["AU05_c"].isna().all()
    assert read["AU12L_r"].isna().all()
    assert result.intensities is not None
    grades = result.intensities[:, AUS.index("AU05")]
    np.testing.assert_allclose(read["AU05_r"], grades, atol=1e-4)


def test_pyfeat(tmp_path: Path) -> None:
    result = mixed()
    result.to_pyfeat().to_csv(tmp_path / "pf.csv", index=False)
    read = read_pyfeat(tmp_path / "pf.csv")
    assert [name for name in read.columns if name.startswith("AU")] == list(AUS)
    np.testing.assert_allclose(read[list(AUS)], result.scores, atol=1e-6)


def test_events_and_elan(tmp_path: Path) -> None:
    result = mixed()
    found = find_events(result)
    assert set(found["au"]) == {"AU01", "AU12", "AU12L", "AU12R"}
    result.to_events(tmp_path / "events.tsv")
    assert set(read_events(tmp_path / "events.tsv")["au"]) == set(found["au"])
    result.to_elan(tmp_path / "a.eaf")
    assert set(read_elan(tmp_path / "a.eaf")["au"]) == set(found["au"])


def test_summary() -> None:
    summary = mixed().summary().iloc[0]
    assert np.isnan(summary["AU05_mean"])
    assert np.isnan(summary["AU05_active_share"])
    assert 0 < summary["AU05_r_mean"] < 5
    assert np.isnan(summary["AU01_r_mean"])
    assert 0 < summary["AU12L_active_share"] < 1
    strongest = mixed().strongest(9)
    assert {au for au, _ in strongest} == {"AU01", "AU12", "AU12L", "AU12R"}


def test_baseline_leaves_intensities_of_the_network() -> None:
    result = mixed()
    adjusted = result.baseline()
    assert adjusted.intensities is not None
    np.testing.assert_array_equal(adjusted.intensities, result.intensities)
    assert (adjusted.scores[:, 1] <= result.scores[:, 1] + 1e-6)[adjusted.active[:, 1]].all()
    levels = adjusted.metadata["baseline"]["levels"]["0"]
    assert set(levels) == {"AU01", "AU12", "AU12L", "AU12R"}
    json.dumps(adjusted.metadata, allow_nan=False)


@pytest.mark.parametrize("all_aus", [True, False])
def test_overlay(all_aus: bool) -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_overlay(image, [mixed()[0]], all_aus=all_aus)
    assert drawn.any()


@pytest.mark.parametrize("kind", ["lines", "heatmap"])
def test_plot(kind: str) -> None:
    pytest.importorskip("matplotlib")
    figure = mixed().plot(kind=kind)
    labels = [axes.get_ylabel() for axes in figure.axes]
    if kind == "lines":
        assert "AU05 upper lid raiser (intensity / 5)" in labels
        assert "AU12L lip corner puller, left" in labels
        line = figure.axes[labels.index("AU05 upper lid raiser (intensity / 5)")].lines[0]
        assert np.isfinite(line.get_ydata()).sum() == FRAMES - 1


def test_report(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    page = mixed().report(tmp_path / "a.html").read_text()
    assert "AU12L lip corner puller, left" in page
    assert "nan" not in page.split("<tbody>")[1].split("</tbody>")[0]
