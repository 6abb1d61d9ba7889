"""Several models on one clip: agreement, page and command."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from test_result import face_row
from toy_network import Toy, recognise, toy_state

from pyfau import AUResult
from pyfau.cli import main
from pyfau.errors import InputError, OptionError
from pyfau.evaluation.compare import compare_models
from pyfau.report.agreement import agreement, align_models, summarize_agreement
from pyfau.report.comparison import write_comparison
from pyfau.weights.manifest import read_manifest
from pyfau.weights.networks import NETWORKS, single_frame

BOX = np.array([10, 10, 50, 50], np.float32)
FAR = BOX + 100


def rows_of(
    aus: tuple[str, ...],
    scores: np.ndarray,
    grades: np.ndarray | None = None,
    box: np.ndarray = BOX,
    face_id: int = 0,
) -> AUResult:
    """(F, N) scores and intensities as rows."""
    result = AUResult(aus, {"source": "clip.mp4"}, intensity=grades is not None)
    for frame, values in enumerate(scores.astype(np.float32)):
        result.append(
            dataclasses.replace(
                face_row(frame),
                face_id=face_id,
                box_xyxy=box,
                aus=aus,
                scores=values,
                active=values >= 0.5,
                intensity=None if grades is None else grades[frame].astype(np.float32),
            )
        )
    return result


RISING = np.linspace(0, 1, 21)[:, None]


def test_agreement_of_one_kind_and_of_two() -> None:
    first = rows_of(("AU12",), RISING)
    second = rows_of(("AU12",), 0.8 * RISING, 5 * RISING**2, face_id=3)
    (face,) = align_models({"one": first, "two": second})
    assert len(face.frames) == 21
    rows = {(row["first"], row["second"]): row for row in agreement([face])}
    same = rows["one (occurrence)", "two (occurrence)"]
    assert same["kinds"] == "occurrence"
    assert same["pearson"] == pytest.approx(1.0)
    assert same["difference"] == pytest.approx(0.1, abs=1e-6)
    assert same["same_active"] == pytest.approx(18 / 21)  # from .5 to .625 they differ
    assert len(rows) == 1  # the two kinds of one model are no pair, and a common kind is enough
    (summary,) = summarize_agreement(list(rows.values()))
    assert summary["aus"] == 1
    assert summary["pearson"] == same["pearson"]
    grades = rows_of(("AU12",), RISING * np.nan, 5 * RISING**2)
    (mixed,) = agreement(align_models({"one": first, "two": grades}))
    assert mixed["second"] == "two (intensity)"
    assert mixed["kinds"] == "occurrence and intensity"
    assert mixed["difference"] is mixed["same_active"] is None
    assert 0.9 < mixed["pearson"] < 1.0


def test_sides_are_averaged_where_the_whole_is_missing() -> None:
    whole = rows_of(("AU12",), RISING)
    sides = rows_of(("AU12L", "AU12R"), np.concatenate([RISING, RISING * 0.5], axis=1))
    (face,) = align_models({"one": whole, "two": sides})
    assert list(face.series) == ["AU12", "AU12L", "AU12R"]
    (row,) = agreement([face])
    assert row["second"] == "two (occurrence, mean of both sides)"
    assert row["pearson"] == pytest.approx(1.0)
    assert row["difference"] == pytest.approx(0.125, abs=1e-6)
    assert row["same_active"] is None


def test_missing_kinds_constants_and_other_faces() -> None:
    steady = rows_of(("AU01", "AU12"), np.concatenate([RISING * 0 + 0.3, RISING], axis=1))
    gone = rows_of(("AU01", "AU12"), np.concatenate([RISING, RISING * np.nan], axis=1))
    (face,) = align_models({"one": steady, "two": gone})
    (row,) = agreement([face])  # of AU12 the second has nothing
    assert row["au"] == "AU01"
    assert row["pearson"] is None
    assert row["frames"] == 21
    elsewhere = rows_of(("AU01",), RISING, box=FAR)
    (face,) = align_models({"one": steady, "two": elsewhere})
    assert agreement([face]) == []
    assert align_models({"one": AUResult(("AU12",), {}), "two": steady}) == []
    with pytest.raises(InputError, match="at least 2 models"):
        align_models({"one": steady})


def test_the_page_has_lines_and_table_and_no_scripts(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    name = "<script>alert(1)</script>"
    results = {
        "one": rows_of(("AU12",), RISING),
        name: rows_of(("AU12",), 1 - RISING, 5 * RISING),
        "three": rows_of(("AU12L", "AU12R"), np.concatenate([RISING, RISING], axis=1)),
    }
    page = write_comparison(results, tmp_path / "a.html").read_text()
    assert "<script" not in page
    assert page.count("<path ") == 6
    assert "-1.00" in page
    assert "AU12L lip corner puller, left" in page
    with pytest.raises(OptionError, match=r"written as \.html"):
        write_comparison(results, tmp_path / "a.txt")


def test_the_command(
    media: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("jinja2")
    monkeypatch.setitem(NETWORKS, "toy", single_frame(Toy, recognise, "a toy"))
    torch.save(toy_state(), tmp_path / "toy.pth")
    page = tmp_path / "page.html"
    clip = str(media / "single_face.jpg")
    models = ["mdhr-lite", str(tmp_path / "toy.pth")]
    command = ["compare", clip, "--models", *models, "-o", str(page), "--quiet"]
    assert main([*command, "--device", "cpu"]) == 0
    assert "mdhr-lite, toy-mean-noise" in capsys.readouterr().out
    text = page.read_text()
    assert "toy-mean-noise (occurrence)" in text
    aligners = [read_manifest()["mdhr-lite"].aligner, "mtcnn"]
    assert re.findall(r'<td class="left">(mtcnn|mesh)</td>', text) == aligners
    assert "<td>1</td>" in text  # the table is there for a single frame
    assert main(["compare", clip, "--models", "mdhr-lite", "-o", str(page)]) == 1
    assert "at least 2 models" in capsys.readouterr().err
    # A model that is missing is found before any work, and the page stays.
    assert main(["compare", clip, "--models", "mdhr-lite", "none", "-o", str(page)]) == 1
    assert "unknown model" in capsys.readouterr().err
    assert page.read_text() == text
    with pytest.raises(OptionError, match="two of the models have the name"):
        compare_models(clip, ["mdhr-lite", "mdhr-lite"], device="cpu")
