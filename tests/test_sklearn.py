"""`ClipFeatures`, the transformer of clips, keeps the rules of scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_blinks import FRAMES, eyes

from pyfau.errors import InputError

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

from pyfau.sklearn import ClipFeatures


def test_features_of_results() -> None:
    clips = [eyes(FRAMES), eyes([0.0] * 60)]
    made = ClipFeatures().fit(clips)
    table = made.transform(clips)
    assert table.shape == (2, len(made.get_feature_names_out()))
    assert table.dtype == np.float64
    blinks = made.get_feature_names_out().tolist().index("blinks")
    assert table[:, blinks].tolist() == [2, 0]
    assert made.transform([]).shape == (0, table.shape[1])


def test_a_pipeline_with_it() -> None:
    clips = [eyes(FRAMES if i % 2 else [0.0] * (60 + i)) for i in range(8)]
    labels = [i % 2 for i in range(8)]
    model = make_pipeline(
        ClipFeatures(), SimpleImputer(keep_empty_features=True), LogisticRegression()
    )
    assert cross_val_predict(model, clips, labels, cv=2).tolist() == labels
    assert clone(model).get_params()["clipfeatures__model"] == "mdhr-lite"


def test_clips_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="no clips"):
        ClipFeatures().fit([])
    made = ClipFeatures().fit([eyes(FRAMES)])
    with pytest.raises(InputError, match="other features"):
        made.transform([eyes(FRAMES, aus=("AU12", "AU25"))])


@pytest.mark.parametrize("path", ["clip.mp4", Path("clip.mp4")])
def test_one_path_is_not_a_list_of_clips(path: str | Path) -> None:
    with pytest.raises(InputError, match="list of clips"):
        ClipFeatures().fit(path)
    made = ClipFeatures().fit([eyes(FRAMES)])
    with pytest.raises(InputError, match="list of clips"):
        made.transform(path)


def test_what_needs_fit_says_so() -> None:
    with pytest.raises(NotFittedError):
        ClipFeatures().transform([eyes(FRAMES)])
    with pytest.raises(NotFittedError):
        ClipFeatures().get_feature_names_out()


def test_a_video_is_scored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []

    class Detector:
        def detect_video(self, path: str) -> object:
            scored.append(path)
            return eyes(FRAMES)

    monkeypatch.setattr("pyfau.sklearn._detector", lambda model: Detector())
    path = tmp_path / "clip.mp4"
    made = ClipFeatures().fit([path])
    made.transform([path, path])
    assert scored == [str(path)]
