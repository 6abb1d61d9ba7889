"""Clips into a scikit-learn pipeline: features of each clip, a scaler, a classifier, judged on people it never saw.

Recordings are named PERSON-LABEL.mp4. Needs scikit-learn: pip install 'pyfau[evaluate]'.

python examples/sklearn_pipeline.py recordings/
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pyfau import AUDetector, AUResult


@cache
def score(path: Path, model: str) -> AUResult:
    """The rows of a clip; every clip is scored once, however often a cross-validation asks."""
    return _detector(model).detect_video(path)


@cache
def _detector(model: str) -> AUDetector:
    return AUDetector(model, max_faces=1)


class ClipFeatures(TransformerMixin, BaseEstimator):
    """Turns paths of clips into rows of features: those of `AUResult.summary`, NaN where a clip has none.

    Args:
        model: As of `AUDetector`.
    """

    def __init__(self, model: str = "mdhr-lite") -> None:
        self.model = model

    def fit(self, paths: Sequence[str | Path], y: object = None) -> ClipFeatures:
        """Nothing is learnt here: the network is trained already."""
        self.names_ = list(score(Path(paths[0]), self.model).summary("clip").columns)
        return self

    def transform(self, paths: Sequence[str | Path]) -> npt.NDArray[np.float64]:
        """(clips, features) float64."""
        return np.concatenate([score(Path(path), self.model).summary("clip").to_numpy() for path in paths])

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.str_]:
        """Names of the features, such as "AU12_mean"."""
        return np.array(self.names_)


def main(folder: Path) -> None:
    clips = sorted(folder.glob("*-*.mp4"))
    people = [clip.stem.rsplit("-", 1)[0] for clip in clips]
    labels = [clip.stem.rsplit("-", 1)[1] for clip in clips]
    if len(set(people)) < 2 or len(set(labels)) < 2:
        raise SystemExit(f"{len(set(people))} people and {len(set(labels))} labels: more than one of each is needed")
    fill = SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True)
    pipeline = make_pipeline(ClipFeatures(), fill, StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    # Whole people are left out: otherwise the classifier learns who is who.
    guesses = cross_val_predict(pipeline, clips, labels, groups=people, cv=LeaveOneGroupOut())
    hits = guesses == np.array(labels)
    by_person = {person: hits[np.array(people) == person].mean() for person in sorted(set(people))}
    print(f"right on people it never saw: {hits.mean():.0%} of {len(clips)} clips")
    print(f"always the commonest label:   {max(labels.count(label) for label in labels) / len(labels):.0%}")
    print("by person:", ", ".join(f"{person} {share:.0%}" for person, share in by_person.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of recordings named PERSON-LABEL.mp4")
    main(parser.parse_args().folder)
