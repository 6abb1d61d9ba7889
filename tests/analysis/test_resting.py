"""A person's resting face that is found in the recording itself: `baseline="auto"`."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_baseline import LIMITS, META, REST, log_odds
from test_detector_properties import STORY, ScriptedAligner, images
from test_models import tiny_model
from test_result import AUS, WRITE, face_row

from pyfau import AUDetector, AUResult, live, read_result
from pyfau.analysis import resting
from pyfau.batch.scoring import ScoreOptions, score
from pyfau.cli import main
from pyfau.errors import OptionError
from pyfau.tables import writers
from pyfau.tables.metadata import is_complete
from pyfau.types import AURow, FaceMeasures
from pyfau.weights.store import save_model

CALM = (0.2, 0.01, 0.02, 0.01)  # AU01 is this face's own
SMILE = (0.25, 0.8, 0.95, 0.7)
FPS = 25
LEAST = FPS  # frames: one second
GOOD = FaceMeasures(0.0, 0.0, 0.0, 60.0, 0.4, 1.0, 0.0, 1.0)


def recording(*parts: tuple[tuple[float, ...], int], face_id: int = 0) -> AUResult:
    """A face that shows the scores of each part for a number of frames."""
    result = AUResult(AUS, META | {"fps": FPS}, measures=True)
    scores = [scores for scores, count in parts for _ in range(count)]
    for i, values in enumerate(np.float32(scores)):
        row = face_row(i, face_id)
        result.append(replace(row, scores=values, active=values >= LIMITS, measures=GOOD))
    return result


def frames_at_rest(result: AUResult) -> dict[str, int]:
    counts: dict[str, int] = result.baseline("auto").metadata["baseline"]["resting_frames"]
    return counts


@pytest.mark.parametrize("suffix", WRITE)
def test_the_resting_face_is_subtracted_from_the_whole_recording(
    suffix: str, tmp_path: Path
) -> None:
    result = recording((SMILE, 50), (CALM, 30), (SMILE, 50))
    before = result.scores.copy()
    adjusted = result.baseline("auto")
    np.testing.assert_array_equal(result.scores, before)
    np.testing.assert_array_equal(adjusted.raw_scores, before)
    shift = log_odds(0.2) - log_odds(REST[0])
    np.testing.assert_allclose(
        log_odds(before[:, 0]) - log_odds(adjusted.scores[:, 0]), shift, atol=1e-4
    )
    np.testing.assert_array_equal(adjusted.scores[:, 1:], before[:, 1:])
    record = adjusted.metadata["baseline"]
    levels = record.pop("levels")["0"]
    assert list(levels.values()) == pytest.approx(CALM, abs=1e-6)
    assert record == {
        "mode": "subtract",
        "at_rest": 0.05,
        "source": "auto",
        "resting_frames": {"0": 30},
        "per_face": True,
    }
    assert adjusted.warnings == []
    # The calculation starts from the raw scores, also in a table.
    back = read_result(WRITE[suffix](adjusted, tmp_path / f"clip{suffix}"))
    np.testing.assert_allclose(back.baseline("auto").scores, adjusted.scores, atol=1e-5)


@pytest.mark.parametrize(
    "parts",
    [
        [(SMILE, 200)],
        [(CALM, LEAST - 1), (SMILE, 200)],
        [(CALM, 4), (SMILE, 4)] * 30,  # calm only within movements
        [((0.2, 0.4, 0.4, 0.1), 200)],  # as likely as not, there is an AU besides another
    ],
)
def test_without_a_resting_face_nothing_changes(parts: list) -> None:
    result = recording(*parts)
    adjusted = result.baseline("auto")
    np.testing.assert_array_equal(adjusted.scores, result.scores)
    np.testing.assert_array_equal(adjusted.active, result.active)
    assert adjusted.metadata["baseline"]["levels"] == {}
    assert adjusted.warnings == [
        "no baseline: less than 1 s at rest for 1 of 1 faces (0), which stay as they are"
    ]
    assert adjusted.baseline("auto").warnings == adjusted.warnings
    assert result.warnings == []


def test_frames_that_cannot_be_trusted_show_no_rest() -> None:
    result = recording((CALM, 100))
    assert frames_at_rest(result) == {"0": 100}
    for quality, expected in ((0.74, 0), (0.75, 100), (np.nan, 0)):
        turned = AUResult(AUS, result.metadata, measures=True)
        turned.extend(replace(row, measures=GOOD._replace(quality=quality)) for row in result)
        assert frames_at_rest(turned) == {"0": expected}
    plain = AUResult(AUS, result.metadata)
    plain.extend(replace(row, measures=None) for row in result)
    assert frames_at_rest(plain) == {"0": 100}
    # Frames between which others are missing are no stretch.
    apart = AUResult(AUS, result.metadata)
    apart.extend(replace(row, frame=2 * row.frame, measures=None) for row in result)
    assert frames_at_rest(apart) == {"0": 0}


@pytest.mark.parametrize(("fps", "least"), [(None, 25), (0, 25), (10.0, 10), (50.0, 50)])
def test_the_time_at_rest_is_in_seconds(fps: float | None, least: int) -> None:
    for count in (least - 1, least):
        result = recording((CALM, count), (SMILE, 60))
        result.metadata["fps"] = fps
        assert frames_at_rest(result) == {"0": count if count == least else 0}


def test_the_calmest_half_gives_the_level() -> None:
    start = (0.6, 0.01, 0.02, 0.01)
    adjusted = recording((start, 20), (CALM, 30), (SMILE, 20)).baseline("auto")
    assert adjusted.metadata["baseline"]["resting_frames"] == {"0": 30}
    assert adjusted.metadata["baseline"]["levels"]["0"]["AU01"] == pytest.approx(0.2, abs=1e-6)


def test_each_face_has_its_own_rest() -> None:
    result = recording((CALM, 40), (SMILE, 40))
    result.extend(recording((SMILE, 80), face_id=3))
    adjusted = result.baseline("auto")
    assert set(adjusted.metadata["baseline"]["levels"]) == {"0"}
    assert adjusted.metadata["baseline"]["resting_frames"] == {"0": 40, "3": 0}
    np.testing.assert_array_equal(adjusted.scores[80:], result.scores[80:])
    (warning,) = adjusted.warnings
    assert "1 of 2 faces (3)" in warning
    shared = result.baseline("auto", per_face=False)
    assert set(shared.metadata["baseline"]["levels"]) == {"0", "3"}
    assert (shared.scores[80:, 0] < result.scores[80:, 0]).all()


_FRAMES = st.lists(
    st.tuples(st.sampled_from([CALM, SMILE, (0.3, 0.3, 0.2, 0.1)]), st.integers(1, 40)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=20, deadline=None)
@given(_FRAMES)
def test_faces_at_rest_get_no_worse(parts: list) -> None:
    result = recording(*parts)
    adjusted = result.baseline("auto")
    assert (adjusted.scores <= result.scores).all()
    assert not (adjusted.active & ~result.active).any()
    raised = result.baseline("auto", mode="threshold")
    np.testing.assert_array_equal(raised.active, adjusted.active)
    np.testing.assert_array_equal(raised.scores, result.scores)


def test_no_rows() -> None:
    adjusted = AUResult(AUS, dict(META)).baseline("auto")
    assert len(adjusted) == 0
    assert adjusted.warnings == []


def test_another_word() -> None:
    message = "unknown baseline 'outo': expected one of auto. Did you mean 'auto'"
    with pytest.raises(OptionError, match=message):
        recording((CALM, 40)).baseline("outo")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=message):
        AUDetector(baseline="outo")  # type: ignore[arg-type]


# ---- the detector


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AUDetector]:
    """Makes detectors whose faces count as at rest in each frame."""
    monkeypatch.setattr(resting, "MOST_AUS", 20.0)
    monkeypatch.setattr(resting, "LEAST_S", 0.4)
    folder = tmp_path / "tiny"
    save_model(tiny_model(21), folder)

    def made(**options: Any) -> AUDetector:
        aligner = ScriptedAligner(STORY)
        return AUDetector(folder, aligner=aligner, measures=False, device="cpu", **options)

    return made


@pytest.mark.parametrize("suffix", WRITE)
def test_the_detector_gives_what_the_result_gives(
    suffix: str, make: Callable[..., AUDetector], tmp_path: Path
) -> None:
    frames = images(30)
    raw = make().detect_frames(frames, fps=FPS)
    table = tmp_path / f"clip{suffix}"
    detector = make(baseline="auto")
    result = detector.detect_frames(frames, fps=FPS, save=table)
    expected = raw.baseline("auto")
    assert (expected.scores < raw.scores).any()
    np.testing.assert_array_equal(result.scores, expected.scores)
    assert result.metadata == expected.metadata
    back = read_result(table)
    np.testing.assert_allclose(back.scores, result.scores, atol=6e-7)
    np.testing.assert_allclose(back.raw_scores, raw.scores, atol=6e-7)
    assert back.metadata["baseline"] == result.metadata["baseline"]
    assert is_complete(table, detector.settings())
    assert back.warnings == result.warnings
    # Calibration measures the scores of the network.
    assert detector.calibrate(frames[3:10]) == make().calibrate(frames[3:10])
    image = detector.detect_image(frames[4], save=table)
    assert "no baseline" in image.warnings[-1]
    assert read_result(table).warnings == image.warnings


@pytest.mark.parametrize("suffix", WRITE)
def test_a_full_disk_leaves_the_table_as_it_was(
    suffix: str,
    make: Callable[..., AUDetector],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = tmp_path / f"clip{suffix}"
    raw = make().detect_frames(images(30), fps=FPS, save=table)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("clip*")}
    kind = writers._WRITERS[suffix]
    write = kind._write

    def full(self: writers.ResultWriter, rows: list[AURow]) -> None:
        write(self, rows[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kind, "_write", full)
    with pytest.raises(OptionError, match=r"clip.* stays as it was: .*No space left"):
        writers.rewrite_table(raw.baseline("auto"), table)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("clip*")} == before
    assert not list(tmp_path.glob(".*clip*"))


def test_streams_and_overlays_are_refused(
    make: Callable[..., AUDetector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyfau.serve.server import AUServer, ServeLimits

    detector = make(baseline="auto")
    message = "baseline='auto' needs a whole recording, and a stream gives its rows before the end"
    for stream in (
        detector.stream,
        lambda: detector.stream(latency=0),
        lambda: detector.iter_frames(images(2)),
        lambda: detector.iter_video(tmp_path / "missing.mp4"),
        lambda: detector.iter_camera(99),
        lambda: AUServer(detector, ServeLimits()),
    ):
        with pytest.raises(OptionError, match=message):
            stream()
    # The live view refuses it before it opens files.
    monkeypatch.setattr(live, "Window", lambda *_: io.StringIO())
    kept = tmp_path / "kept.csv"
    kept.write_text("kept")
    with pytest.raises(OptionError, match=message):
        live.watch(lambda: detector, tmp_path / "missing.mp4", table=kept)
    assert kept.read_text() == "kept"
    overlay = tmp_path / "overlay.mp4"
    with pytest.raises(OptionError, match="an overlay is drawn before the end"):
        detector.detect_frames(images(2), overlay=overlay)
    with pytest.raises(OptionError, match="an overlay is drawn before the end"):
        detector.detect_image(images(1)[0], overlay=tmp_path / "overlay.png")
    with pytest.raises(OptionError, match="--baseline needs a whole recording"):
        score(["clip.mp4"], "out.csv", ScoreOptions(overlay=overlay), {"baseline": "auto"})
    assert not overlay.exists()


# ---- the command line


def test_tables_and_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output, page = (tmp_path / name for name in ("in.csv", "out.csv", "page.html"))
    result = recording((SMILE, 50), (CALM, 30))
    result.to_csv(source)
    assert main(["table", str(source), "-o", str(output), "--baseline", "auto"]) == 0
    adjusted = read_result(output)
    np.testing.assert_allclose(adjusted.scores, result.baseline("auto").scores, atol=1e-5)
    assert adjusted.has_raw
    command = ["report", str(source), "-o", str(page), "--quiet", "--baseline"]
    assert main([*command, "auto"]) == 0
    assert "scores lowered to each face at rest (found in the recording)" in page.read_text("utf-8")
    capsys.readouterr()
    for words in (["table", str(source), "-o", str(output), "--baseline"], command):
        assert main([*words, "rest"]) == 1
        complaint = "--baseline takes auto or a number in [0, 1], got 'rest'"
        assert complaint in capsys.readouterr().err
