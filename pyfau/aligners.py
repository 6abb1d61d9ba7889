"""The public path of the aligners; the code is in `pyfau.faces`."""

from pyfau.faces.aligner import ALIGNER_NAMES, Aligner, load_aligner

__all__ = ["ALIGNER_NAMES", "Aligner", "load_aligner"]
