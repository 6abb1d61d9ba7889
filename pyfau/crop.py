"""The public path of the crops; the code is in `pyfau.faces.crop`."""

from pyfau.faces.crop import crop_face, fit_similarity, square_view, warp

__all__ = ["crop_face", "fit_similarity", "square_view", "warp"]
