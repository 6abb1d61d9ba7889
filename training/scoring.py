"""Log-odds of a network for every crop of a source, and figures against coders' grades."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from data import AUS, CLEARLY_ABSENT, CLEARLY_PRESENT, JUDGED
from network import Trainee, head_odds
from sampling import Source, pieces, shrink
from sklearn.metrics import roc_auc_score
from targets import mean_grade
from torch import Tensor

from pyfau.models.mdhr import CONTEXT, MDHR, FrameFeatures

BATCH = 64
BINS = 10  # of the calibration error: the test sets are small


def as_input(net: MDHR, crops: np.ndarray) -> Tensor:
    """Stored crops (F, STORED, STORED, 3) as `MDHR.encode` takes them."""
    pixels = (shrink(crops).float() - net.mean) / net.std
    return pixels.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def image_odds(net: MDHR, crops: np.ndarray) -> np.ndarray:
    """Log-odds (F, N) of the head, each crop as a single image, as pyfau scores images."""
    net.eval()
    odds = []
    for piece in pieces(len(crops), BATCH):
        features = net.encode(as_input(net, crops[piece]))
        length = 2 * CONTEXT + 1
        repeated = [x.repeat_interleave(length, 0) for x in (features.static, features.dynamic)]
        windows = FrameFeatures(*repeated).unflatten(len(features), length)
        odds.append(window_odds(net, windows)[:, 0])
    return torch.cat(odds).numpy()


@torch.inference_mode()
def clip_odds(net: MDHR, crops: np.ndarray) -> np.ndarray:
    """Log-odds (F, N) of consecutive frames, in the continuous window that pyfau uses for video."""
    net.eval()
    parts = [net.encode(as_input(net, crops[piece])) for piece in pieces(len(crops), BATCH)]
    features = FrameFeatures.cat(parts)
    order = torch.arange(-CONTEXT, len(crops) + CONTEXT).clamp(0, len(crops) - 1)
    return window_odds(net, features[order].unflatten(1, len(order)))[0].numpy()


def window_odds(net: MDHR, windows: FrameFeatures) -> Tensor:
    """(B, T, ...) -> (B, T - 14, N) log-odds of the head before calibration."""
    dynamic = net.dynamics(windows.dynamic, "inner")
    skip = (windows.static.shape[1] - dynamic.shape[1]) // 2
    tokens = dynamic + windows.static[:, skip:-skip]
    units, _ = net.relate_units(tokens.flatten(0, 1))
    return head_odds(net, net.temporal(units.unflatten(0, tokens.shape[:2]), "inner"))


def runs_of(source: Source) -> list[np.ndarray]:
    """Indices of consecutive frames of each clip, without gaps."""
    clip, frame = source.columns["clip"], source.columns["frame"]
    begins = (clip[1:] != clip[:-1]) | (np.diff(frame) != 1)
    return np.split(np.arange(len(clip)), np.flatnonzero(begins) + 1)


def coded_odds(net: MDHR, source: Source, mine: np.ndarray, in_motion: bool) -> np.ndarray:
    """Log-odds (M, N) of some crops (F,) bool of a source.

    Args:
        net: The network.
        source: The crops.
        mine: Which of them.
        in_motion: Score each frame within its clip; otherwise each as a single image.
    """
    if not in_motion:
        return image_odds(net, source.crops[np.flatnonzero(mine)])
    found = np.full((len(mine), len(net.config.aus)), np.nan, np.float32)
    for run in runs_of(source):
        wanted = run[mine[run]]
        if len(wanted):
            near = run[(run >= wanted[0] - CONTEXT) & (run <= wanted[-1] + CONTEXT)]
            found[near] = clip_odds(net, source.crops[near])
    return found[mine]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r over the values that both have; NaN if one of them does not vary."""
    known = ~np.isnan(a) & ~np.isnan(b)
    a, b = a[known], b[known]
    if len(a) < 3 or a.std() < 1e-6 or b.std() < 1e-6:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def presence(grade: np.ndarray) -> np.ndarray:
    """Mean grades -> 1 present, 0 absent, NaN in between or unknown."""
    found = np.full(grade.shape, np.nan)
    found[grade >= CLEARLY_PRESENT] = 1.0
    found[grade <= CLEARLY_ABSENT] = 0.0
    return found


def area(scores: np.ndarray, present: np.ndarray) -> float:
    """Area under the ROC curve; NaN without both classes."""
    known = ~np.isnan(present) & ~np.isnan(scores)
    if len(np.unique(present[known])) < 2:
        return float("nan")
    return float(roc_auc_score(present[known], scores[known]))


def mean_of(values: Sequence[float], aus: Sequence[int] = JUDGED) -> float:
    """Mean over some action units of one figure for each of `AUS`."""
    return float(np.nanmean([values[AUS.index(au)] for au in aus]))


def summary(net: Trainee, sources: dict[str, Source], split: str, in_motion: bool) -> dict:
    """Mean r and AUC over `JUDGED` on the coded faces and frames of a split."""
    result = {}
    for name in ("faces", "clips"):
        source = sources[name]
        mine = source.of_split(split) & source.coded
        odds = coded_odds(net.mdhr, source, mine, in_motion and name == "clips")
        scores = 1 / (1 + np.exp(-odds))
        grade = mean_grade(source.columns["grades"][mine])
        present = presence(grade)
        columns = range(len(AUS))
        r = [correlation(scores[:, i], grade[:, i]) for i in columns]
        auc = [area(scores[:, i], present[:, i]) for i in columns]
        weak = {f"AU{au}": round(r[AUS.index(au)], 2) for au in (4, 7, 10, 14, 24)}
        figures = {"r": round(mean_of(r), 3), "auc": round(mean_of(auc), 3)}
        result[name] = figures | weak
    return result
