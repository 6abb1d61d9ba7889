"""A person's baseline: what it changes, what it leaves, and what it says about that."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_result import AUS, WRITE, empty_row, face_row

from pyfau import AUDetector, AUResult, Baseline, read_result
from pyfau.analysis.baseline import AT_REST, LEAST_FRAMES
from pyfau.errors import InputError, OptionError
from pyfau.video import read_video

THRESHOLDS = dict(zip(AUS, (0.3, 0.5, 0.45, 0.06), strict=True))
META = {"model_sha256": "a" * 64, "thresholds": THRESHOLDS}
LIMITS = np.array(list(THRESHOLDS.values()), np.float32)
REST = np.minimum(AT_REST, LIMITS / 2)  # that of AU25 is lower


def of(scores: np.ndarray, face_id: int = 0, first: int = 0) -> AUResult:
    """A face in each frame; scores (F, 4), or (F,) for all AUs."""
    result = AUResult(AUS, dict(META))
    wide = np.broadcast_to(
        np.asarray(scores, np.float32).reshape(len(scores), -1), (len(scores), len(AUS))
    )
    for i, row in enumerate(wide, first):
        result.append(replace(face_row(i, face_id), scores=row.copy(), active=row >= LIMITS))
    return result


def log_odds(p: float | np.ndarray) -> np.ndarray:
    p = np.asarray(p, np.float64)
    return np.log(p / (1 - p))


def level(score: float, model: str | None = None) -> Baseline:
    return Baseline(dict.fromkeys(AUS, score), 10, model)


_SCORES = st.lists(
    st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), min_size=LEAST_FRAMES, max_size=40
)


@settings(max_examples=30, deadline=None)
@given(_SCORES, st.floats(0, 1))
def test_whatever_the_scores(rows: list[list[float]], quantile: float) -> None:
    result = of(np.float32(rows))
    raw, before = result.scores.copy(), result.active.copy()
    low = result.baseline(quantile=quantile)
    high = result.baseline(quantile=quantile, mode="threshold")
    np.testing.assert_array_equal(result.scores, raw)  # the result itself stays
    np.testing.assert_array_equal(result.active, before)
    assert "baseline" not in result.metadata
    np.testing.assert_array_equal(low.raw_scores, raw)
    np.testing.assert_array_equal(high.raw_scores, raw)
    np.testing.assert_array_equal(high.scores, raw)
    assert low.scores.dtype == np.float32
    assert low.scores.min() >= 0
    assert (low.scores <= raw).all()  # so that nothing leaves [0, 1]
    for i in range(len(AUS)):  # the order of the frames stays
        assert (np.diff(low.scores[np.argsort(raw[:, i], kind="stable"), i]) >= 0).all()
    assert not (low.active & ~before).any()
    assert not (high.active & ~before).any()
    np.testing.assert_array_equal(high.active, low.active)
    higher = np.float32(list(high.metadata["baseline"]["thresholds"]["0"].values()))
    near = np.abs(raw - higher) < 2e-6
    assert ((high.active == (raw >= higher)) | near).all()
    np.testing.assert_array_equal(low.active, low.scores >= LIMITS)
    # Again is the same: from the raw scores, and also if the adjusted ones are taken for raw.
    np.testing.assert_array_equal(low.baseline(quantile=quantile).scores, low.scores)
    np.testing.assert_array_equal(high.baseline(quantile=quantile).scores, low.scores)
    np.testing.assert_allclose(
        of(low.scores).baseline(quantile=quantile).scores, low.scores, rtol=0, atol=2e-5
    )


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1, width=32), st.floats(0, 1))
def test_a_face_that_never_moves_is_at_rest(score: float, quantile: float) -> None:
    result = of(np.full(LEAST_FRAMES, score)).baseline(quantile=quantile)
    expected = np.broadcast_to(np.minimum(score, REST), result.scores.shape)
    np.testing.assert_allclose(result.scores, expected, rtol=0, atol=1e-5)
    assert not result.active.any()


def test_the_shift_is_in_log_odds() -> None:
    raw = np.linspace(0.02, 0.98, 49)
    result = of(raw).baseline(level(0.4))
    shift = log_odds(0.4) - log_odds(REST)
    np.testing.assert_allclose(
        log_odds(raw[:, None]) - log_odds(result.scores), shift[None].repeat(49, 0), atol=1e-4
    )
    higher = of(raw).baseline(level(0.4), mode="threshold").metadata["baseline"]["thresholds"]["0"]
    assert log_odds(np.array(list(higher.values()))) == pytest.approx(
        log_odds(LIMITS) + shift, abs=1e-4
    )
    same = of(raw).baseline(Baseline(dict(zip(AUS, REST.tolist(), strict=True)), 1))
    np.testing.assert_array_equal(same.scores, same.raw_scores)


def test_each_person_has_their_own() -> None:
    def mixed() -> AUResult:
        result = of(np.r_[np.full(40, 0.4), np.full(10, 0.9)], face_id=0)
        result.extend(of(np.r_[np.full(40, 0.02), np.full(10, 0.9)], face_id=5))
        result.append(empty_row(50))
        return result

    own = mixed().baseline(quantile=0.5)
    face = np.array([-1 if i is None else i for i in own.face_id_column])
    assert own.active[face == 0].any(axis=1).sum() == 10
    np.testing.assert_array_equal(own.scores[face == 5], own.raw_scores[face == 5])
    assert set(own.metadata["baseline"]["levels"]) == {"0", "5"}
    assert np.isnan(own.scores[-1]).all()
    shared = mixed().baseline(quantile=0.5, per_face=False)
    levels = shared.metadata["baseline"]["levels"]
    assert levels["0"] == levels["5"]
    assert (shared.scores < shared.raw_scores)[face == 5].any()


def test_too_few_frames_are_said_and_left_alone() -> None:
    result = of(np.full(50, 0.6))
    result.extend(of(np.full(LEAST_FRAMES - 1, 0.6), face_id=1, first=60))
    adjusted = result.baseline()
    assert adjusted.warnings == ["no baseline: fewer than 30 scored frames for 1 of 2 faces (1)"]
    assert adjusted.baseline().warnings == adjusted.warnings
    np.testing.assert_array_equal(adjusted.scores[50:], result.scores[50:])
    np.testing.assert_array_equal(adjusted.active[50:], result.active[50:])
    assert result.warnings == []
    assert len(AUResult(AUS, dict(META)).baseline()) == 0
    result.extend(
        row for i in range(2, 40) for row in of(np.full(1, 0.6), face_id=i, first=100 + i)
    )
    (warning,) = result.baseline().warnings
    assert warning.endswith("39 of 40 faces (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...)")


@pytest.mark.parametrize("mode", ["subtract", "threshold"])
@pytest.mark.parametrize("suffix", WRITE)
def test_it_survives_files(tmp_path: Path, suffix: str, mode: str) -> None:
    result = of(np.random.default_rng(0).random((50, 4)))
    result.append(empty_row(50))
    adjusted = result.baseline(quantile=0.25, mode=mode)
    back = read_result(WRITE[suffix](adjusted, tmp_path / f"clip{suffix}"))
    assert back.metadata["baseline"] == adjusted.metadata["baseline"]
    assert back.metadata["baseline"] | {"levels": 0, "thresholds": 0} == {
        "mode": mode,
        "at_rest": AT_REST,
        "source": "quantile",
        "quantile": 0.25,
        "per_face": True,
        "levels": 0,
        "thresholds": 0,
    }
    for name in ("scores", "raw_scores", "active"):
        np.testing.assert_allclose(getattr(back, name), getattr(adjusted, name), rtol=0, atol=6e-7)
    table = back.to_dataframe()
    assert ("AU12_raw" in table) == (mode == "subtract")
    assert list(table.columns) == list(adjusted.to_dataframe().columns)
    assert back[0].to_dict().keys() == adjusted[0].to_dict().keys() == set(table.columns)
    np.testing.assert_allclose(
        back.baseline(quantile=0.25).scores, result.baseline(quantile=0.25).scores, atol=1e-5
    )


def test_a_threshold_alone_can_be_taken_back_to_none() -> None:
    result = of(np.full(40, 0.6))
    high = result.baseline(mode="threshold")
    assert not high.active.any()
    np.testing.assert_array_equal(high.baseline({}).active, result.active)


def test_calibrated_baselines() -> None:
    result = of(np.full(5, 0.6))  # fewer frames than a quantile needs
    result.extend(of(np.full(5, 0.6), face_id=2, first=5))  # the same person, found again
    assert (result.baseline(level(0.5)).scores < 0.2).all()
    one = result.baseline({2: level(0.5)})
    assert (one.scores[:5] == result.scores[:5]).all()
    assert (one.scores[5:] < 0.2).all()
    assert one.metadata["baseline"]["source"] == "calibration"
    with pytest.raises(OptionError, match=r"a baseline for face 1: the result has faces \[0, 2\]"):
        result.baseline({1: level(0.5)})
    with pytest.raises(
        OptionError, match=r"a baseline for face '0': the result has faces \[0, 2\]"
    ):
        result.baseline({"0": level(0.5)})  # type: ignore[dict-item]
    with pytest.raises(
        OptionError, match=r"expected a Baseline or \{face_id: Baseline\}, got 0\.5"
    ):
        result.baseline(0.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the baseline has no level for AU25"):
        result.baseline(Baseline(dict.fromkeys(AUS[:3], 0.1), 1))
    with pytest.raises(
        InputError,
        match="the baseline is of the model with sha256 bbbbbbbbbbbb, and the result of aaaa",
    ):
        result.baseline(level(0.5, "b" * 64))
    result.extend(of(np.full(5, 0.6), face_id=1))
    with pytest.raises(
        InputError, match=r"a frame shows several faces: give \{face_id: Baseline, \.\.\.\}"
    ):
        result.baseline(level(0.5))
    assert (result.baseline({0: level(0.5), 1: level(0.5)}).scores[:5] < 0.2).all()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"mode": "divide"}, "unknown mode 'divide': expected one of subtract, threshold"),
        ({"quantile": 1.5}, r"quantile must be a number in \[0, 1\], got 1\.5"),
        ({"quantile": math.nan}, "quantile must be"),
        ({"quantile": True}, "quantile must be"),
        ({"quantile": "low"}, "quantile must be"),
    ],
)
def test_options(options: dict, complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        of(np.full(40, 0.5)).baseline(**options)


def test_without_thresholds() -> None:
    result = of(np.full(40, 0.5))
    for thresholds in (None, {"AU12": 0.5}, dict.fromkeys(AUS, "high")):
        result.metadata["thresholds"] = thresholds
        with pytest.raises(
            InputError, match=r"needs thresholds for all AUs in the metadata, got (None|\{'AU)"
        ):
            result.baseline()


@pytest.mark.parametrize("bad", [1.5, -0.1, math.nan, "0.5", None])
def test_levels_are_scores(bad: float) -> None:
    with pytest.raises(OptionError, match=r"the level of AU01 must be a score in \[0, 1\]"):
        level(bad)


@pytest.mark.media
def test_calibrate(media: Path) -> None:
    detector = AUDetector(device="cpu")
    result = detector.detect_video(media / "single_face.mp4")
    with read_video(media / "single_face.mp4") as reader:
        neutral = [frame.rgb for frame in reader if frame.index < 10]
    baseline = detector.calibrate(neutral)
    assert baseline.frames == 10
    assert baseline.model_sha256 == result.metadata["model_sha256"]
    assert tuple(baseline.levels) == detector.aus
    adjusted = result.baseline(baseline)
    smile = detector.aus.index("AU12")
    assert result.active[-20:, smile].sum() >= 18
    # The smile is still one.
    np.testing.assert_array_equal(adjusted.active[-20:, smile], result.active[-20:, smile])
    assert (adjusted.scores <= result.scores).all()
    assert not adjusted.active[:10].any()
    with pytest.raises(InputError, match="no face was found in the neutral frames"):
        detector.calibrate([np.zeros((240, 320, 3), np.uint8)])
    with pytest.raises(
        InputError, match="a frame shows several faces: calibrate on frames of one person"
    ):
        detector.calibrate(media / "multi_face.jpg")
