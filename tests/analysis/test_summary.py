"""Features of clips, and a scikit-learn pipeline that takes them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from test_formats import results
from test_result import AUS, META, empty_row, face_row

from pyfau import AUResult
from pyfau.analysis.events import find_events
from pyfau.errors import OptionError

AU_FEATURES = ["mean", "std", "p10", "p50", "p90", "active_share", "onsets_per_min", "event_mean_s"]
COLUMNS = ["frames", "seconds", "face_share", "confidence_mean"] + [
    f"{au}_{name}" for au in AUS for name in AU_FEATURES
]


def clip(scores: np.ndarray, face_id: int = 0, first: int = 0, fps: float = 10.0) -> AUResult:
    """A face in a frame for each row of scores, (F, 4) or (F,) for all AUs; active at 0.5."""
    result = AUResult(AUS, META)
    wide = np.broadcast_to(
        np.asarray(scores, np.float32).reshape(len(scores), -1), (len(scores), len(AUS))
    )
    for i, row in enumerate(wide, first):
        like = face_row(i, face_id)
        result.append(replace(like, time_s=i / fps, scores=row.copy(), active=row >= 0.5))
    return result


def test_figures_by_hand() -> None:
    # 30 frames of 0.1 s.
    result = clip([0.0] * 10 + [0.8] * 5 + [0.2] * 10 + [0.6, 0.7] + [0.0] * 3)
    for frame in (30, 31):
        result.append(empty_row(frame))
    (row,) = result.summary("clip").to_dict("records")
    assert row["frames"] == 30
    assert row["seconds"] == pytest.approx(3.0)
    assert row["face_share"] == pytest.approx(30 / 32)
    assert row["confidence_mean"] == pytest.approx(0.987654)
    scores = result.scores[:30, 0].astype(float)
    assert row["AU12_mean"] == pytest.approx(scores.mean())
    assert row["AU12_std"] == pytest.approx(scores.std())
    assert [row[f"AU12_p{p}"] for p in (10, 50, 90)] == pytest.approx(
        np.percentile(scores, (10, 50, 90)).tolist()
    )
    assert row["AU12_active_share"] == pytest.approx(7 / 30)
    assert row["AU12_onsets_per_min"] == pytest.approx(2 / 3.0 * 60)
    assert row["AU12_event_mean_s"] == pytest.approx((0.5 + 0.2) / 2)


def test_seconds_are_those_of_the_frames_at_every_rate() -> None:
    """5 s at 30 frames a second, then 30 s at 5 frames a second; a face leaves for 10 frames."""
    times = np.append(np.arange(150) / 30, 5 + np.arange(150) / 5)
    result = AUResult(AUS, META)
    for i, time_s in enumerate(times.tolist()):
        like = empty_row(i) if 100 <= i < 110 else face_row(i)
        result.append(replace(like, time_s=time_s))
    for row in (result.summary("clip").iloc[0], result.summary().loc[0]):
        # The last frame lasts as long as most frames.
        assert row["seconds"] == pytest.approx(35 - 10 / 30, abs=0.2)
        assert row["frames"] == 290


def test_missing_scores_do_not_count() -> None:
    scores = np.full((10, 4), 0.2)
    scores[:4, 0] = 0.9
    scores[4:6, 0] = math.nan
    scores[:, 1] = math.nan
    row = clip(scores).summary("clip").iloc[0]
    first, second, third, _ = AUS
    assert row[f"{first}_mean"] == pytest.approx((4 * 0.9 + 4 * 0.2) / 8)
    assert row[f"{first}_p50"] == pytest.approx(0.55)
    assert row[f"{first}_active_share"] == pytest.approx(4 / 8)
    assert math.isnan(row[f"{second}_mean"])
    assert math.isnan(row[f"{second}_active_share"])
    assert row[f"{third}_mean"] == pytest.approx(0.2)


def test_an_onset_that_was_not_seen_is_no_onset() -> None:
    (row,) = clip([0.8] * 5 + [0.1] * 5).summary("clip").to_dict("records")
    assert row["AU12_onsets_per_min"] == 0
    assert row["AU12_event_mean_s"] == pytest.approx(0.5)


def test_faces_apart_and_together() -> None:
    result = clip([0.8] * 20, face_id=3)
    result.extend(clip([0.0] * 5 + [0.6] * 5, face_id=1, first=10))
    faces, both = result.summary(), result.summary(per="clip")
    assert faces.index.name == "face_id"
    assert faces.index.tolist() == [1, 3]
    assert faces["face_share"].tolist() == [0.5, 1.0]
    assert faces["AU12_onsets_per_min"].tolist() == pytest.approx([60.0, 0.0])
    assert both["frames"].tolist() == [30]
    assert both["face_share"].tolist() == [1.0]
    assert both["seconds"].tolist() == pytest.approx([3.0])
    assert both["AU12_onsets_per_min"].tolist() == pytest.approx([20.0])
    assert both["AU12_mean"][0] == pytest.approx((20 * 0.8 + 5 * 0.6) / 30, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(results())
def test_the_columns_are_always_the_same_numbers(result: AUResult) -> None:
    faces, whole = result.summary(), result.summary("clip")
    ids = result.face_ids
    assert (len(faces), len(whole)) == (len(ids), 1)
    for table in (faces, whole):
        assert list(table.columns) == COLUMNS
        assert set(table.dtypes) == {np.dtype("float64")}
        assert not np.isinf(table.to_numpy()).any()
        shares = table[
            ["face_share", *(name for name in COLUMNS if name.endswith("_share"))]
        ].to_numpy()
        assert np.nan_to_num(shares).min(initial=0) >= 0
        assert np.nan_to_num(shares).max(initial=0) <= 1
    assert whole["frames"][0] == faces["frames"].sum() == sum(row.success for row in result)
    seen = find_events(result)["onset_seen"].sum()
    if seen and not math.isnan(whole["seconds"][0]):
        rates = whole[[f"{au}_onsets_per_min" for au in AUS]].to_numpy().sum()
        assert rates == pytest.approx(seen / whole["seconds"][0] * 60)
    if not ids:
        assert whole[[name for name in COLUMNS if name.startswith("AU")]].isna().all(axis=None)


def test_images_that_are_no_sequence_have_no_rates() -> None:
    result = AUResult(AUS, META | {"independent": True}, files=True)
    result.extend(face_row(i, i, file=f"{i}.jpg") for i in range(5))
    row = result.summary("clip").iloc[0]
    assert row[[f"AU12_{name}" for name in ("onsets_per_min", "event_mean_s")]].isna().all()
    assert math.isnan(row["seconds"])
    assert row["AU12_mean"] == pytest.approx(float(result.scores[:, 2].mean()), abs=1e-6)


def test_per_what() -> None:
    with pytest.raises(OptionError, match=r"unknown per .person.: expected one of face, clip"):
        AUResult(AUS, META).summary("person")


def test_summaries_go_through_a_pipeline() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    clips = [
        clip(np.clip(rng.normal(0.25 + 0.4 * label, 0.2, (40, len(AUS))), 0, 1)) for label in labels
    ]
    nothing = AUResult(AUS, META)
    nothing.extend(empty_row(i) for i in range(9))
    clips[0] = nothing  # NaN is what imputers are for
    features = pd.concat([result.summary("clip") for result in clips], ignore_index=True)
    assert features.isna().any(axis=None)
    model = make_pipeline(SimpleImputer(), StandardScaler(), linear_model.LogisticRegression())
    assert cross_val_score(model, features, labels, cv=4).mean() > 0.85
    assert list(model.fit(features, labels).feature_names_in_) == COLUMNS
