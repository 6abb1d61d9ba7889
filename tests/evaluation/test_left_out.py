"""Data sets that are left out, one at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_result import face_row

from pyfau import AUResult
from pyfau.cli import main
from pyfau.errors import InputError, OptionError
from pyfau.evaluation import TableOptions
from pyfau.evaluation.comparison import render
from pyfau.evaluation.left_out import evaluate_left_out

pytest.importorskip("sklearn", reason="figures need scikit-learn")

AUS = ("AU12",)


def data_set(folder: Path, name: str, limit: float, graded: bool = False) -> tuple[Path, Path]:
    """Labels that say "present" from a score of `limit`."""
    import dataclasses

    scores = np.linspace(0.01, 0.99, 50).astype(np.float32)
    result = AUResult(AUS, {"model": "m", "thresholds": {"AU12": 0.5}}, intensity=graded)
    lines = ["frame,AU12"]
    for frame, score in enumerate(scores):
        row = dataclasses.replace(
            face_row(frame),
            aus=AUS,
            scores=np.array([score]),
            active=np.array([score >= 0.5]),
            intensity=np.array([score * 5]) if graded else None,
        )
        result.append(row)
        lines.append(f"{frame},{score * 4 if graded else int(score >= limit)}")
    labels, table = folder / f"{name}-labels.csv", folder / f"{name}.csv"
    labels.write_text("\n".join(lines) + "\n")
    result.to_csv(table)
    return labels, table


def test_thresholds_come_from_the_other_data_sets(tmp_path: Path) -> None:
    sets = {"a": data_set(tmp_path, "a", 0.2), "b": data_set(tmp_path, "b", 0.8)}
    report = evaluate_left_out(sets, TableOptions(more=True))
    assert report["thresholds"]["a"]["AU12"] == pytest.approx(0.81, abs=0.02)
    assert report["thresholds"]["b"]["AU12"] == pytest.approx(0.21, abs=0.02)
    # At its own best threshold, each would be perfect.
    assert report["folds"]["a"]["aus"]["AU12"]["best_f1"] == 1.0
    assert report["folds"]["a"]["aus"]["AU12"]["auc"] == 1.0
    assert report["folds"]["a"]["aus"]["AU12"]["f1"] < 0.5
    mean = np.mean([report["folds"][name]["mean"]["f1"] for name in sets])
    assert report["over_folds"]["mean"]["f1"] == pytest.approx(mean)
    text = render(report)
    assert text.splitlines()[0].split()[:5] == ["AU", "frames", "present", "a", "b"]
    chosen = report["thresholds"]
    row = ["AU12", *(f"{chosen[name]['AU12']:.2f}" for name in "ab")]
    after = text.partition("each chosen on the other data sets:")[2].splitlines()[1:3]
    assert [line.split() for line in after] == [["AU", "a", "b"], row]


def test_other_thresholds(tmp_path: Path) -> None:
    sets = {"a": data_set(tmp_path, "a", 0.2), "b": data_set(tmp_path, "b", 0.5)}
    own = evaluate_left_out(sets, threshold="model")
    assert own["thresholds"]["a"] == {"AU12": None}
    assert own["folds"]["b"]["mean"]["f1"] == 1.0
    assert "chosen on the other data sets" not in render(own)
    fixed = evaluate_left_out(sets, threshold=0.2)
    assert fixed["folds"]["a"]["mean"]["f1"] == 1.0
    with pytest.raises(InputError, match="at least 2, got 1"):
        evaluate_left_out({"a": sets["a"]})
    with pytest.raises(OptionError, match="threshold"):
        evaluate_left_out(sets, threshold=2.0)
    with pytest.raises(InputError, match="b: "):
        evaluate_left_out(sets | {"b": (sets["b"][0], tmp_path / "a-labels.csv")})


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = []
    for name in ("a", "b", "c"):
        options += ["--set", name, *map(str, data_set(tmp_path, name, 0.5, graded=True))]
    out = tmp_path / "report.json"
    command = ["evaluate", "--data", "csv", "--present", "2", "--report", str(out), *options]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "intensity, FACS grades from 0 to 5:" in said
    assert "intensity, c:" in said
    report = json.loads(out.read_text())
    assert report["intensity"]["mean"]["pearson"] == pytest.approx(1.0)
    assert report["intensity_folds"]["a"]["mean"]["mae"] == pytest.approx(0.5, abs=0.05)
    assert main(["evaluate", "--data", "csv", *options[:4], *options[:4]]) == 1
    assert "is given twice" in capsys.readouterr().err
    assert main(["evaluate", "--data", "csv", "--labels", "x", *options]) == 1
    assert "leave out --labels" in capsys.readouterr().err
