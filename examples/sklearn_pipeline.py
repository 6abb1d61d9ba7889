"""Classify clips with scikit-learn, tested on new people.

Recordings are named PERSON-LABEL.mp4. Needs scikit-learn: pip install 'pyfau[sklearn]'.

python examples/sklearn_pipeline.py recordings/
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pyfau.sklearn import ClipFeatures


def main(folder: Path) -> None:
    clips = sorted(folder.glob("*-*.mp4"))
    people = [clip.stem.rsplit("-", 1)[0] for clip in clips]
    labels = [clip.stem.rsplit("-", 1)[1] for clip in clips]
    if len(set(people)) < 2 or len(set(labels)) < 2:
        raise SystemExit(
            f"{len(set(people))} people and {len(set(labels))} labels: "
            "more than one of each is needed"
        )
    fill = SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True)
    pipeline = make_pipeline(
        ClipFeatures(), fill, StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)
    )
    # Leave out whole people. Otherwise the classifier learns to recognise them.
    guesses = cross_val_predict(pipeline, clips, labels, groups=people, cv=LeaveOneGroupOut())
    hits = guesses == np.array(labels)
    by_person = {person: hits[np.array(people) == person].mean() for person in sorted(set(people))}
    print(f"correct on new people:        {hits.mean():.0%} of {len(clips)} clips")
    most_common = max(labels.count(label) for label in labels)
    print(f"always the most common label: {most_common / len(labels):.0%}")
    print("by person:", ", ".join(f"{person} {share:.0%}" for person, share in by_person.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of recordings named PERSON-LABEL.mp4")
    main(parser.parse_args().folder)
