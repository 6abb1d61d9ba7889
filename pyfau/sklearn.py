"""A scikit-learn transformer that turns clips into features. Needs `pyfau[sklearn]`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pyfau.detector import AUDetector
from pyfau.errors import DependencyError, InputError
from pyfau.result import AUResult
from pyfau.types import StrPath

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise DependencyError(
        "pyfau.sklearn needs the package scikit-learn: pip install 'pyfau[sklearn]'"
    ) from None


@cache
def _detector(model: str) -> AUDetector:
    return AUDetector(model, max_faces=1)


@cache
def _score(path: str, model: str) -> AUResult:
    """Score a clip once in this process; a cross-validation uses the result again."""
    return _detector(model).detect_video(path)


class ClipFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns clips into rows of features, those of `AUResult.summary`.

    A clip is a path of a video or an `AUResult`. Videos are scored with `max_faces=1`, each once in
    a process. Missing values are NaN, so a pipeline needs an imputer.

    Args:
        model: As of `AUDetector`.

    Attributes:
        names_: The names of the features, such as "AU12_mean"; after `fit`.
    """

    def __init__(self, model: str = "mdhr-lite") -> None:
        self.model = model

    def fit(self, clips: Sequence[StrPath | AUResult], y: object = None) -> ClipFeatures:
        """Note the names of the features. The network is trained already.

        Raises:
            InputError: There is no clip, or `clips` is one path.
        """
        _check_clips(clips)
        if not len(clips):
            raise InputError("there are no clips to fit on")
        self.names_ = list(self._result(clips[0]).summary("clip").columns)
        self.n_features_out_ = len(self.names_)
        return self

    def transform(self, clips: Sequence[StrPath | AUResult]) -> npt.NDArray[np.float64]:
        """The features as a float64 array of shape (clips, features).

        Raises:
            InputError: A clip has other features than the clips of `fit`, or `clips` is one path.
            sklearn.exceptions.NotFittedError: `fit` was not called.
        """
        check_is_fitted(self)
        _check_clips(clips)
        rows = []
        for clip in clips:
            table = self._result(clip).summary("clip")
            if list(table.columns) != self.names_:
                raise InputError("a clip has other features than those of fit: use one model")
            rows.append(table.to_numpy(np.float64)[0])
        return np.array(rows, np.float64).reshape(len(rows), len(self.names_))

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[Any]:
        """The names of the features.

        Raises:
            sklearn.exceptions.NotFittedError: `fit` was not called.
        """
        check_is_fitted(self)
        return np.array(self.names_, dtype=object)

    def _result(self, clip: StrPath | AUResult) -> AUResult:
        return clip if isinstance(clip, AUResult) else _score(str(clip), self.model)


def _check_clips(clips: object) -> None:
    """Check that this is not one path, whose letters would be taken for clips."""
    if isinstance(clips, str | os.PathLike):
        raise InputError(f"expected a list of clips, got one path: {os.fspath(clips)!r}")
