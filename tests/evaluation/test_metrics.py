"""Measures, on cases worked by hand."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfau.errors import DependencyError, InputError

pytest.importorskip("sklearn", reason="figures need scikit-learn")

from pyfau.evaluation.metrics import calibration_error, icc_3_1, mean_of, measure, over_folds


def one(labels: list[int], scores: list[float], more: bool = False, threshold: float = 0.5) -> dict:
    column = np.array(scores, np.float32)[:, None]
    return measure(np.array(labels, np.int8)[:, None], column, column >= threshold, ["AU12"], more)


def test_f1_and_accuracy_by_hand() -> None:
    # Two hits, one miss, one false alarm, two correct rejections.
    figures = one([1, 1, 1, 0, 0, 0], [0.9, 0.5, 0.4, 0.6, 0.1, 0.0])
    assert figures["frames"] == 6
    assert figures["aus"]["AU12"] == {
        "frames": 6,
        "present": 3,
        "f1": pytest.approx(4 / 6),
        "accuracy": 4 / 6,
    }
    assert figures["mean"] == {"f1": pytest.approx(2 / 3), "accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("labels", "scores", "f1", "accuracy"),
    [
        (
            [0, 0, 0],
            [0.1, 0.2, 0.3],
            0.0,
            1.0,
        ),  # never there, never reported: 0 / 0 is 0 in the official code
        ([0, 0, 0], [0.9, 0.2, 0.3], 0.0, 2 / 3),  # never there, reported once
        ([1, 1, 0], [0.1, 0.2, 0.3], 0.0, 1 / 3),  # there, never found
        ([1, 1], [0.9, 0.9], 1.0, 1.0),
    ],
)
def test_aus_that_never_occur(
    labels: list[int], scores: list[float], f1: float, accuracy: float
) -> None:
    figures = one(labels, scores, more=True)["aus"]["AU12"]
    assert (figures["f1"], figures["accuracy"]) == (f1, pytest.approx(accuracy))
    both = 0 < sum(labels) < len(labels)
    assert (figures["auc"] is not None) == both
    assert (figures["best_f1"] is not None) == (sum(labels) > 0)


def test_ignored_frames_and_frames_without_a_score_do_not_count() -> None:
    figures = one([1, -1, 0, 1, 9], [0.9, 0.9, 0.1, np.nan, 0.9])
    assert figures["frames"] == 2
    assert figures["aus"]["AU12"] == {"frames": 2, "present": 1, "f1": 1.0, "accuracy": 1.0}


def test_all_frames_ignored() -> None:
    labels = np.array([[-1, 1], [-1, 0]], np.int8)
    scores = np.array([[0.9, 0.9], [0.1, 0.1]], np.float32)
    figures = measure(labels, scores, scores >= 0.5, ["AU01", "AU02"], more=True)
    assert figures["frames"] == 2
    assert figures["aus"]["AU01"] == {
        "frames": 0,
        "present": 0,
        "f1": None,
        "accuracy": None,
        "auc": None,
        "best_f1": None,
        "best_threshold": None,
        "icc": None,
        "calibration_error": None,
    }
    assert figures["mean"]["f1"] == 1.0, "the mean is over AUs with frames"
    nothing = one([-1, -1], [0.9, 0.1])
    assert (nothing["frames"], nothing["mean"]) == (0, {"f1": None, "accuracy": None})


def test_more_by_hand() -> None:
    # One of the six pairs of a present and an absent frame is the wrong way round: .55 before .6.
    figures = one([1, 1, 0, 0, 0], [0.8, 0.55, 0.6, 0.3, 0.1], more=True)["aus"]["AU12"]
    assert figures["auc"] == pytest.approx(5 / 6)
    # From .8 on: P 1, R 1/2, F 2/3. From .6: P 1/2, R 1/2. From .55: P 2/3, R 1, F 4/5.
    # From .3: P 1/2, R 1, F 2/3.
    assert figures["best_f1"] == pytest.approx(0.8)
    assert figures["best_threshold"] == pytest.approx(0.55)
    # Bins .1, .3, .5 (.55), .6, .8 hold one frame each: gaps .1, .3, .45, .6, .2.
    assert figures["calibration_error"] == pytest.approx(
        (0.1 + 0.3 + 0.45 + 0.6 + 0.2) / 5, abs=1e-6
    )


def test_calibration_error_by_hand() -> None:
    # Bin 0.2-0.3 holds .2 and .24 with one of two present; the last bin holds 1.0, present.
    assert calibration_error(np.array([0, 1, 1]), np.array([0.2, 0.24, 1.0])) == pytest.approx(
        2 / 3 * (0.5 - 0.22)
    )


def test_icc_of_shrout_and_fleiss() -> None:
    # Table 2 of Shrout and Fleiss (1979), six targets by four judges.
    # Their table 4 gives ICC(3,1) = .71.
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    value = icc_3_1(np.array(ratings, float))
    assert value == pytest.approx(0.7148, abs=5e-5)
    # Another constant on one judge changes nothing: consistency, not agreement.
    assert icc_3_1(np.array(ratings) + np.array([0, 0, 3, 0])) == pytest.approx(value)


def test_icc_at_its_limits() -> None:
    x = np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    assert icc_3_1(np.stack([x, x], 1)) == pytest.approx(1.0)
    assert icc_3_1(np.stack([x, -x], 1)) == pytest.approx(-1.0)
    assert icc_3_1(np.ones((4, 2))) is None
    assert icc_3_1(np.ones((1, 2))) is None


def test_over_folds_is_the_mean_of_folds() -> None:
    first = one([1, 1, 0, 0], [0.9, 0.9, 0.1, 0.1])  # F1 1 of 4 frames
    second = one([1, 0], [0.1, 0.1])  # F1 0 of 2
    third = one([-1], [0.1])  # nothing to judge by
    total = over_folds([first, second, third])
    assert total["frames"] == 6
    assert total["aus"]["AU12"] == {"frames": 6, "present": 3, "f1": 0.5, "accuracy": 0.75}
    assert total["mean"] == {"f1": 0.5, "accuracy": 0.75}


def test_mean_of() -> None:
    assert mean_of([None, 1.0, 0.0]) == 0.5
    assert mean_of([None]) is None


@given(
    st.lists(
        st.tuples(st.sampled_from([-1, 0, 1, 9]), st.floats(0, 1, width=32)),
        min_size=1,
        max_size=40,
    )
)
def test_f1_is_the_official_codes(rows: list[tuple[int, float]]) -> None:
    labels, scores = [label for label, _ in rows], [score for _, score in rows]
    hits = sum(y == 1 and s >= 0.5 for y, s in rows)
    false = sum(y == 0 and s >= 0.5 for y, s in rows)
    missed = sum(y == 1 and s < 0.5 for y, s in rows)
    precision, recall = hits / (hits + false + 1e-20), hits / (hits + missed + 1e-20)
    expected = 2 * precision * recall / (precision + recall + 1e-20)
    f1 = one(labels, scores, more=True)["aus"]["AU12"]["f1"]
    if {0, 1} & set(labels):
        assert f1 == pytest.approx(expected)
    else:
        assert f1 is None


def test_shapes_must_agree() -> None:
    with pytest.raises(InputError, match=r"one shape \(F, 1\)"):
        measure(
            np.zeros((3, 1), np.int8),
            np.zeros((2, 1), np.float32),
            np.zeros((3, 1), bool),
            ["AU12"],
        )


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: object) -> object:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DependencyError, match=r"pip install 'pyfau\[evaluate\]'"):
        one([1], [0.9])
