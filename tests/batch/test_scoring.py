"""`score`: what `pyfau detect` does, from Python."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pyfau.batch import ScoreOptions, score
from pyfau.errors import OptionError


def test_inputs_are_scored_resumed_and_summarised(tmp_path: Path, media: Path) -> None:
    image = next(path for path in sorted(media.rglob("*.jpg")))
    inputs = [str(image), str(tmp_path / "none.mp4")]
    options = ScoreOptions(summary=tmp_path / "features.csv", resume=True)
    batch = score(inputs, tmp_path / "scores", options, {"device": "cpu"})
    assert len(batch) == 2
    assert batch.features is None  # nothing is scored before the iteration
    assert [report.status for report in batch] == ["done", "failed"]
    assert batch.features is not None
    assert batch.features.count == 1
    with (tmp_path / "features.csv").open() as file:
        assert len(list(csv.DictReader(file))) >= 1
    again = score(inputs[:1], tmp_path / "scores", options, {"device": "cpu"})
    assert [report.status for report in again] == ["skipped"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ScoreOptions(jobs=0), "--jobs must be at least 1, got 0"),
        (ScoreOptions(threads=0), "--threads must be at least 1, got 0"),
        (ScoreOptions(gpu_share=1), "are for --runner ray"),
        (
            ScoreOptions(runner="slurm"),  # type: ignore[arg-type]
            "unknown runner 'slurm': expected one of local, ray",
        ),
        (ScoreOptions(format="parket"), "Did you mean 'parquet'?"),  # type: ignore[arg-type]
        (ScoreOptions(summary="a.txt"), "features are written to a .csv file"),
    ],
)
def test_options_that_do_not_apply(options: ScoreOptions, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        score(["a.mp4", "b.mp4"], tmp_path / "scores", options)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())
