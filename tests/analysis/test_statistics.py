"""Statistics on tables: figures by hand, and those of scipy and statsmodels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_result import face_row

from pyfau import AUResult
from pyfau.analysis import (
    average_epochs,
    compare_groups,
    find_co_occurrence,
    find_epochs,
    intersubject_correlation,
    join_markers,
)
from pyfau.errors import InputError, OptionError
from pyfau.report import plot_average, plot_co_occurrence, plot_groups, plot_intersubject

AUS = ("AU06", "AU12")
SHARE = "AU12_active_share"


def recording(
    scores: Any, fps: float = 10.0, start_s: float = 0.0, missing: tuple[int, ...] = ()
) -> AUResult:
    """A face with (F, 2) scores; active at 0.5. Frames of `missing` have no row."""
    result = AUResult(AUS, {"fps": fps})
    for i, values in enumerate(np.asarray(scores, np.float32)):
        if i in missing:
            continue
        row = replace(face_row(i), aus=AUS, scores=values, active=values >= 0.5)
        result.append(replace(row, time_s=start_s + i / fps))
    return result


def people(a: list[float], b: list[float], paired: bool = True) -> pd.DataFrame:
    """One row for each person and condition."""
    first = [f"p{i}" for i in range(len(a))]
    second = first if paired else [f"q{i}" for i in range(len(b))]
    return pd.DataFrame(
        {"person": [*first, *second], "condition": ["a"] * len(a) + ["b"] * len(b), SHARE: a + b}
    )


def compare(table: pd.DataFrame, **options: Any) -> Any:
    return compare_groups(table, [SHARE], group="condition", person="person", **options)


def test_a_paired_comparison_by_hand() -> None:
    film, rest = [0.42, 0.31, 0.55, 0.12, 0.38, 0.47], [0.20, 0.28, 0.31, 0.15, 0.19, 0.22]
    (row,) = compare(people(rest, film)).itertuples()
    difference = np.array(film) - np.array(rest)
    assert row.paired
    assert (row.people_a, row.people_b) == (6, 6)
    assert row.difference == pytest.approx(difference.mean())
    assert row.effect == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert (row.mean_a, row.mean_b) == pytest.approx((np.mean(rest), np.mean(film)))
    assert row.low < row.difference < row.high
    assert compare(people(rest, film)).equals(compare(people(rest, film)))


def test_intervals_of_many_people_are_those_of_students_t(rng: np.random.Generator) -> None:
    a, b = rng.normal(0.3, 0.1, 300), rng.normal(0.4, 0.1, 300)
    (row,) = compare(people(a.tolist(), b.tolist())).itertuples()
    exact = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (row.low, row.high) == pytest.approx((exact.low, exact.high), abs=0.0015)
    (row,) = compare(people(a.tolist(), b.tolist(), paired=False)).itertuples()
    exact = stats.ttest_ind(b, a).confidence_interval(0.95)
    assert not row.paired
    assert (row.low, row.high) == pytest.approx((exact.low, exact.high), abs=0.0015)
    pooled = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert row.effect == pytest.approx((b.mean() - a.mean()) / pooled)


def test_intervals_are_those_of_a_mixed_model(rng: np.random.Generator) -> None:
    smf = pytest.importorskip("statsmodels.formula.api")
    person = rng.normal(0, 0.2, 200)
    a = 0.3 + person + rng.normal(0, 0.05, 200)
    b = 0.4 + person + rng.normal(0, 0.05, 200)
    table = people(a.tolist(), b.tolist())
    model = smf.mixedlm(f"{SHARE} ~ condition", table, groups=table["person"]).fit()
    (row,) = compare(table).itertuples()
    assert row.difference == pytest.approx(model.params["condition[T.b]"], abs=1e-4)
    low, high = model.conf_int().loc["condition[T.b]"]
    assert (row.low, row.high) == pytest.approx((low, high), abs=0.0015)


def test_many_recordings_of_a_person_count_once() -> None:
    table = people([0.1, 0.2, 0.4], [0.2, 0.4, 0.6])
    again = pd.concat([table, table[table["person"] == "p0"]] * 3)
    pd.testing.assert_frame_equal(compare(again), compare(table))


def test_groups_that_do_not_fit() -> None:
    table = people([0.1, 0.2, 0.4], [0.2, 0.4, 0.6])
    mixed = table.iloc[:-1]
    with pytest.raises(InputError, match=r"some in one of them \(p2\): paired=True"):
        compare(mixed)
    assert compare(mixed, paired=True)["people_a"].tolist() == [2]
    with pytest.raises(InputError, match="some people are in both groups: p0, p1, p2"):
        compare(table, paired=False)
    with pytest.raises(InputError, match="no person is in both"):
        compare(people([0.1], [0.2], paired=False), paired=True)
    with pytest.raises(InputError, match="at least two groups in 'condition', got a"):
        compare(table[table["condition"] == "a"])
    with pytest.raises(OptionError, match="no column 'AU99'"):
        compare_groups(table, ["AU99"], group="condition", person="person")
    for options in ({"confidence": 1}, {"confidence": "x"}, {"resamples": 3}):
        with pytest.raises(OptionError):
            compare(table, **options)


def test_one_person_and_equal_people_have_no_width() -> None:
    (row,) = compare(people([0.1], [0.3])).itertuples()
    assert math.isnan(row.low)
    assert math.isnan(row.effect)
    (row,) = compare(people([0.1, 0.1], [0.3, 0.3])).itertuples()
    assert (row.low, row.high) == pytest.approx((0.2, 0.2))
    assert math.isnan(row.effect)


def test_correlation_with_the_mean_of_the_others(rng: np.random.Generator) -> None:
    shared = rng.random((80, 2))
    scores = {f"p{i}": 0.6 * shared + 0.4 * rng.random((80, 2)) for i in range(4)}
    found = intersubject_correlation({name: recording(own) for name, own in scores.items()})
    assert len(found) == 8
    for au, person, r, samples in found.itertuples(index=False):
        column = AUS.index(au)
        own = np.float32(scores[person][:, column])
        others = np.mean([s[:, column] for name, s in scores.items() if name != person], axis=0)
        assert r == pytest.approx(stats.pearsonr(own, others).statistic, abs=1e-5)
        assert samples == 80
    assert found["r"].min() > 0.5


def test_recordings_that_start_at_other_times_and_have_gaps(rng: np.random.Generator) -> None:
    scores = rng.random((60, 2))
    late = np.concatenate([np.zeros((20, 2)), scores])
    results = {"a": recording(scores, missing=tuple(range(30, 40))), "b": recording(late)}
    found = intersubject_correlation(results, start_s={"b": 2.0})
    assert found["r"].tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert set(found["samples"]) == {50}
    slower = intersubject_correlation(
        {"a": recording(scores), "b": recording(scores[::2], fps=5.0)}, step_s=0.2
    )
    assert slower["r"].tolist() == pytest.approx([1.0] * 4, abs=1e-5)


def test_correlations_that_cannot_be_computed(rng: np.random.Generator) -> None:
    one = recording(rng.random((20, 2)))
    with pytest.raises(InputError, match="at least two, got 1"):
        intersubject_correlation({"a": one})
    with pytest.raises(InputError, match="b: there is no scored face"):
        intersubject_correlation({"a": one, "b": AUResult(AUS, {})})
    with pytest.raises(InputError, match="0 samples"):
        intersubject_correlation({"a": one, "b": one}, start_s={"a": 100.0})
    with pytest.raises(OptionError, match="person without a result: c"):
        intersubject_correlation({"a": one, "b": one}, start_s={"c": 1.0})
    with pytest.raises(OptionError, match="'AU99' is not one of AU06, AU12"):
        intersubject_correlation({"a": one, "b": one}, aus=["AU99"])
    with pytest.raises(OptionError, match="step_s"):
        intersubject_correlation({"a": one, "b": one}, step_s=0)
    flat = recording(np.full((20, 2), 0.5))
    assert intersubject_correlation({"a": one, "b": flat})["r"].isna().all()


def step_after(markers: list[int], height: float, frames: int = 200) -> np.ndarray:
    """Scores that rise by `height` for 10 frames after each marker; AU06 stays at 0.2."""
    scores = np.full((frames, 2), 0.2)
    for frame in markers:
        scores[frame : frame + 10, 1] += height
    return scores


def test_epochs_around_markers() -> None:
    result = recording(step_after([50, 120], 0.5))
    markers = pd.DataFrame({"onset_s": [12.0, 5.0], "code": ["film", "film"]})
    epochs = find_epochs(result, markers, before_s=1, after_s=2)
    assert epochs["epoch"].unique().tolist() == [0, 1]
    assert epochs["time_s"].min() == -1.0
    assert epochs["time_s"].max() == 2.0
    assert len(epochs) == 2 * 2 * 31
    averages = average_epochs(epochs)
    smile = averages[averages["au"] == "AU12"].set_index("time_s")["mean"]
    assert smile.loc[-1.0:-0.1].tolist() == pytest.approx([0.0] * 10, abs=1e-6)
    assert smile.loc[0.0:0.9].tolist() == pytest.approx([0.5] * 10, abs=1e-6)
    assert smile.loc[1.0:2.0].tolist() == pytest.approx([0.0] * 11, abs=1e-6)
    assert set(averages["units"]) == {2}
    raw = find_epochs(result, [5.0], before_s=1, after_s=2, baseline_s=None)
    assert raw["code"].unique().tolist() == ["marker"]
    assert raw.loc[raw["au"] == "AU06", "score"].tolist() == pytest.approx([0.2] * 31)


def test_people_count_once_and_intervals_are_students_t() -> None:
    heights = [0.1, 0.3, 0.5, 0.7]
    parts = [
        find_epochs(recording(step_after([50, 120], height)), [5.0, 12.0]).assign(person=i)
        for i, height in enumerate(heights)
    ]
    parts.append(parts[0])  # more epochs of one person
    averages = average_epochs(pd.concat(parts), confidence=0.9)
    at = averages[(averages["au"] == "AU12") & (averages["time_s"] == 0.5)].iloc[0]
    exact = stats.t.interval(0.9, 3, loc=np.mean(heights), scale=stats.sem(heights))
    assert at["mean"] == pytest.approx(0.4)
    assert (at["low"], at["high"]) == pytest.approx(exact, abs=1e-6)
    assert at["units"] == 4


def test_a_missing_face_is_no_score() -> None:
    result = recording(step_after([50], 0.5), missing=(52, *range(54, 60)))
    epochs = find_epochs(result, [5.0], baseline_s=None, aus=["AU12"], after_s=1)
    scores = epochs.set_index("time_s")["score"]
    assert scores.loc[0.2] == pytest.approx(0.7)  # a single missing frame is bridged
    assert scores.loc[0.4:0.9].isna().all()
    lost = recording(step_after([50], 0.5), missing=tuple(range(30, 50)))
    assert find_epochs(lost, [5.0], aus=["AU12"])["score"].isna().all()  # no baseline
    beyond = find_epochs(result, [100.0], baseline_s=None)
    assert beyond["score"].isna().all()


def test_markers_that_cannot_be_used() -> None:
    result = recording(step_after([50], 0.5))
    with pytest.raises(InputError, match="there are no markers"):
        find_epochs(result, [])
    with pytest.raises(InputError, match="need a column onset_s, got time"):
        find_epochs(result, pd.DataFrame({"time": [1.0]}))
    with pytest.raises(InputError, match="finite"):
        find_epochs(result, [math.nan])
    with pytest.raises(InputError, match="must be seconds"):
        find_epochs(result, pd.DataFrame({"onset_s": ["early"]}))
    with pytest.raises(OptionError, match="baseline_s must be two times inside the epoch"):
        find_epochs(result, [5.0], before_s=0.5)
    for options in ({"before_s": -1}, {"after_s": math.inf}, {"step_s": 0}, {"baseline_s": 1}):
        with pytest.raises(OptionError):
            find_epochs(result, [5.0], **options)
    without_times = recording(step_after([50], 0.5))
    table = without_times.to_dataframe().assign(time_s=math.nan)
    with pytest.raises(InputError, match="no times"):
        find_epochs(AUResult.from_dataframe(table, {}), [5.0])
    with pytest.raises(InputError, match="with times"):
        join_markers(table, [5.0])
    with pytest.raises(OptionError, match="'score' is missing"):
        average_epochs(pd.DataFrame({"code": [], "au": [], "time_s": []}))


def test_markers_join_the_frame_that_is_shown() -> None:
    table = recording(step_after([50], 0.5, frames=60)).to_dataframe()
    markers = pd.DataFrame({"onset_s": [0.1, 0.25, 0.29, 99.0, -1.0], "code": list("abcde")})
    marked = join_markers(table, markers)
    texts = marked.dropna(subset=["marker"]).set_index("frame")["marker"]
    assert texts.to_dict() == {0: "e", 1: "a", 2: "b;c", 59: "d"}
    assert join_markers(table, [])["marker"].isna().all()
    assert "marker" not in table


def test_markers_after_the_recording_are_refused() -> None:
    """A recording of 6 s, and markers in milliseconds."""
    table = recording(step_after([50], 0.5, frames=60)).to_dataframe()
    assert join_markers(table, [6.0])["marker"].notna().sum() == 1
    with pytest.raises(InputError, match=r"end of the recording at 6\.000 s, the first at 500"):
        join_markers(table, [500.0, 1500.0])


def test_rows_without_a_score_do_not_count_for_a_pair() -> None:
    scores = [[0.9, 0.8], [0.8, math.nan], [0.1, 0.1], [0.7, 0.9], [math.nan, 0.9], [0.2, 0.6]]
    (row,) = find_co_occurrence(recording(scores)).itertuples()
    a, b = np.float32([scores[i] for i in (0, 2, 3, 5)]).T
    assert row.jaccard == pytest.approx(2 / 3)
    assert row.both == pytest.approx(2 / 4)
    assert row.correlation == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-5)


def test_an_action_unit_without_scores_leaves_the_others(rng: np.random.Generator) -> None:
    one, other = rng.random((40, 2)), rng.random((40, 2))
    other[:, 1] = math.nan
    other[3:6, 0] = math.nan  # one frame would be bridged
    found = intersubject_correlation({"a": recording(one), "b": recording(other)})
    known = [i for i in range(40) if not 3 <= i < 6]
    r = stats.pearsonr(one[known, 0], other[known, 0]).statistic
    assert found["r"][:2].tolist() == pytest.approx([r, r], abs=1e-5)
    assert found["samples"].tolist() == [37, 37, 0, 0]
    assert found["r"][2:].isna().all()


def test_equal_differences_have_no_effect_size() -> None:
    """0.3 - 0.2 and 0.7 - 0.6 differ in the last digit."""
    first = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    (row,) = compare(people(first, [value + 0.1 for value in first])).itertuples()
    assert math.isnan(row.effect)
    assert row.low == row.high == pytest.approx(0.1)


def test_co_occurrence_by_hand() -> None:
    scores = [[0.9, 0.8], [0.8, 0.2], [0.1, 0.1], [0.7, 0.9]]
    (row,) = find_co_occurrence(recording(scores)).itertuples()
    assert (row.au_a, row.au_b, row.frames) == ("AU06", "AU12", 4)
    assert row.jaccard == pytest.approx(2 / 3)
    assert row.both == pytest.approx(0.5)
    a, b = np.float32(scores).T
    assert row.correlation == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-5)
    empty = find_co_occurrence(AUResult(AUS, {}))
    assert empty["jaccard"].isna().all()
    assert empty["frames"].tolist() == [0]
    with pytest.raises(OptionError, match="face_id"):
        find_co_occurrence(recording(scores), face_id=3)


def test_plots_show_the_tables() -> None:
    comparison = compare(people([0.1, 0.2, 0.4], [0.2, 0.5, 0.6]))
    result = recording(step_after([50, 120], 0.5))
    averages = average_epochs(find_epochs(result, [5.0, 12.0]))
    pairs = find_co_occurrence(result)
    subjects = intersubject_correlation({"a": result, "b": result})
    figures = [
        plot_groups(comparison),
        plot_average(averages),
        plot_co_occurrence(pairs, "correlation"),
        plot_intersubject(subjects),
    ]
    texts = [
        [text.get_text() for axes in figure.axes for text in axes.get_yticklabels()]
        + [axes.get_ylabel() for axes in figure.axes]
        for figure in figures
    ]
    assert f"{SHARE}: b - a" in texts[0]
    assert {"AU06", "AU12"} <= set(texts[1])
    assert {"AU06", "AU12"} <= set(texts[2])
    for plot, own in (
        (plot_groups, comparison),
        (plot_average, averages),
        (plot_co_occurrence, pairs),
        (plot_intersubject, subjects),
    ):
        with pytest.raises(InputError, match="empty"):
            plot(own.iloc[:0])
        with pytest.raises(InputError, match="expected the table of"):
            plot(pd.DataFrame({"x": [1]}))
    with pytest.raises(OptionError, match="code must be one of marker, got 'x'"):
        plot_average(averages, "x")
    with pytest.raises(OptionError, match="unknown kind"):
        plot_co_occurrence(pairs, "odd")


def test_names_in_plots_are_no_formulas() -> None:
    odd = find_co_occurrence(recording([[0.9, 0.8], [0.1, 0.2]]))
    odd = odd.assign(au_a=r"$\nothing$", au_b="$x$")
    figure = plot_co_occurrence(odd)
    figure.savefig(__import__("io").BytesIO(), format="png")
