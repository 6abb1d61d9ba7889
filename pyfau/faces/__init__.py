"""Faces: aligners that find them, the tracker that follows them, and crops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyfau.lazy import lazy_names

if TYPE_CHECKING:
    from pyfau.faces.aligner import ALIGNER_NAMES, Aligner, load_aligner
    from pyfau.faces.crop import crop_face, fit_similarity
    from pyfau.faces.tracker import FaceTracker

__all__ = [
    "ALIGNER_NAMES",
    "Aligner",
    "FaceTracker",
    "crop_face",
    "fit_similarity",
    "load_aligner",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ALIGNER_NAMES": "aligner",
        "Aligner": "aligner",
        "FaceTracker": "tracker",
        "crop_face": "crop",
        "fit_similarity": "crop",
        "load_aligner": "aligner",
    },
)
