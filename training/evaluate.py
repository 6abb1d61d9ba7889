r"""Step 5: agreement with the coders on people outside the training set.

    python training/evaluate.py --data ../runs/data --model pyfau/assets/mdhr-lite \
        --out ../runs/lite/report.json

Next to each figure are the figures of one coder against the mean of the others, and of MediaPipe's
blendshape for the action unit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import AUS, JUDGED
from network import leave_out
from sampling import Source
from scipy.special import expit, logit
from scoring import area, coded_odds, correlation, presence
from targets import mean_grade

from pyfau.analysis.baseline import own_part
from pyfau.aus import au_name
from pyfau.evaluation.metrics import calibration_error, icc_3_1
from pyfau.intensity import GRADES, expected_intensity
from pyfau.models.mdhr import MDHR
from pyfau.weights.store import load_model

# MediaPipe's blendshapes for each action unit; both sides are averaged. It has none for the others.
CHANNELS = {
    1: ("browInnerUp",),
    2: ("browOuterUpLeft", "browOuterUpRight"),
    4: ("browDownLeft", "browDownRight"),
    5: ("eyeWideLeft", "eyeWideRight"),
    6: ("eyeSquintLeft", "eyeSquintRight"),
    7: ("eyeSquintLeft", "eyeSquintRight"),
    9: ("noseSneerLeft", "noseSneerRight"),
    10: ("mouthUpperUpLeft", "mouthUpperUpRight"),
    12: ("mouthSmileLeft", "mouthSmileRight"),
    14: ("mouthDimpleLeft", "mouthDimpleRight"),
    15: ("mouthFrownLeft", "mouthFrownRight"),
    17: ("mouthShrugLower",),
    18: ("mouthPucker",),
    20: ("mouthStretchLeft", "mouthStretchRight"),
    24: ("mouthPressLeft", "mouthPressRight"),
    25: ("mouthLowerDownLeft", "mouthLowerDownRight"),
    26: ("jawOpen",),
    28: ("mouthRollLower", "mouthRollUpper"),
    43: ("eyeBlinkLeft", "eyeBlinkRight"),
}
# Pairs of AUs that exclude each other, and pairs in which the first AU needs the second.
EXCLUSIVE = ((24, 25), (7, 43))
NEEDS = ((26, 25),)
STUDIO = "canada_"  # start of the names of the neutral studio portraits
FACS = np.array([0.0, 0.5, 1.0, 2.0]), np.array(list(GRADES.values()))
REST_QUANTILE = 0.1  # of a person's frames, taken for the resting face
DRAWS, INTERVAL = 500, (5, 95)  # of images with replacement, and the percentiles given
Figures = dict[str, Any]


def aligned(net: MDHR, odds: np.ndarray) -> np.ndarray:
    """Calibrated scores in the order of `AUS`; NaN for action units that the network lacks."""
    slope, offset = np.array(net.config.calibration or [(1.0, 0.0)] * len(net.config.aus)).T
    scores = np.full((len(odds), len(AUS)), np.nan)
    for i, au in enumerate(net.config.aus):
        if au in AUS:
            scores[:, AUS.index(au)] = expit(slope[i] * odds[:, i] + offset[i])
    return scores


def thresholds(net: MDHR) -> np.ndarray:
    """(N,) in the order of `AUS`; over 1 for action units that the network lacks."""
    known = dict(zip(net.config.aus, net.config.thresholds, strict=True))
    return np.array([known.get(au, 2.0) for au in AUS])


def facs_grade(grades: np.ndarray) -> np.ndarray:
    """Grades 0, 0.5, 1, 2 -> the FACS scale from 0 to 5."""
    return np.where(np.isnan(grades), np.nan, np.interp(np.nan_to_num(grades), *FACS))


def channel(source: Source, names: list[str], mine: np.ndarray, au: int) -> np.ndarray:
    """(M,) MediaPipe's blendshape for an action unit; NaN if it has none."""
    if au not in CHANNELS:
        return np.full(int(mine.sum()), np.nan)
    columns = [names.index(name) for name in CHANNELS[au]]
    return source.shapes[mine][:, columns].astype(float).mean(axis=1)


def f1(active: np.ndarray, present: np.ndarray) -> float | None:
    """F1 over images in which the action unit is clearly present or clearly absent."""
    known = ~np.isnan(present)
    active, truth = active[known], present[known] == 1
    total = int(active.sum() + truth.sum())
    return 2 * int((active & truth).sum()) / total if truth.any() and total else None


def coder_figures(grades: np.ndarray) -> Figures:
    """One coder against the mean of the others, averaged over the coders; (F, coders) grades."""
    r, f1s, areas = [], [], []
    for coder in range(grades.shape[1]):
        one, others = grades[:, coder], np.delete(grades, coder, axis=1)
        rest = mean_grade(others[:, :, None])[:, 0]
        both = ~np.isnan(one) & ~np.isnan(rest)
        if not both.any():
            continue
        r.append(correlation(one, rest))
        present = np.where(both, presence(rest), np.nan)
        f1s.append(f1(one >= 1, present))
        areas.append(area(one, present))
    return {"coder_r": mean(r), "coder_f1": mean(f1s), "coder_auc": mean(areas)}


def mean(values: list[float | None]) -> float | None:
    """Mean of the known values."""
    known = [v for v in values if v is not None and not np.isnan(v)]
    return float(np.mean(known)) if known else None


def intensity_figures(net: MDHR, scores: np.ndarray, grades: np.ndarray, i: int) -> Figures:
    """r, ICC(3,1) and mean absolute error on the FACS scale."""
    if not net.config.has_intensity:
        return {}
    offsets = [net.config.grade_offsets[i]]
    predicted = expected_intensity(scores[:, i : i + 1], offsets)[:, 0].astype(float)
    truth = mean_grade(facs_grade(grades[:, :, i])[:, :, None])[:, 0]
    known = ~np.isnan(truth) & ~np.isnan(predicted)
    pairs = np.stack([predicted[known], truth[known]], axis=1)
    return {
        "intensity_r": correlation(predicted, truth),
        "intensity_icc": icc_3_1(pairs),
        "intensity_mae": float(np.abs(pairs[:, 0] - pairs[:, 1]).mean()),
    }


def against_coders(
    net: MDHR, source: Source, mine: np.ndarray, scores: np.ndarray, names: list[str]
) -> Figures:
    """All figures of some coded images, by action unit and as means over `JUDGED`."""
    grades = source.columns["grades"][mine].astype(float)
    grade = mean_grade(grades)
    present = presence(grade)
    limits = thresholds(net)
    rows: Figures = {}
    for i, au in enumerate(AUS):
        known = ~np.isnan(present[:, i]) & ~np.isnan(scores[:, i])
        told = channel(source, names, mine, au)
        row = {
            "present": int(np.nansum(present[:, i])),
            "r": correlation(scores[:, i], grade[:, i]),
            "auc": area(scores[:, i], present[:, i]),
            "f1": f1(scores[:, i] >= limits[i], present[:, i]),
            "ece": calibration_error(present[known, i], scores[known, i]) if known.any() else None,
            "mediapipe_r": correlation(told, grade[:, i]),
            "mediapipe_auc": area(told, present[:, i]),
        }
        row |= intensity_figures(net, scores, grades, i)
        rows[au_name(au)] = row | coder_figures(grades[:, :, i])
    keys = dict.fromkeys(key for row in rows.values() for key in row)
    means = {key: mean([rows[au_name(au)].get(key) for au in JUDGED]) for key in keys}
    means["r_interval"] = interval(scores, grade)
    return {"pictures": int(mine.sum()), "mean": means, "aus": rows}


def interval(scores: np.ndarray, grade: np.ndarray) -> list[float]:
    """The 90 % bootstrap interval over images of the mean r over `JUDGED`."""
    rng = np.random.default_rng(0)
    columns = [AUS.index(au) for au in JUDGED]
    drawn = []
    for _ in range(DRAWS):
        some = rng.integers(len(scores), size=len(scores))
        drawn.append(np.nanmean([correlation(scores[some, i], grade[some, i]) for i in columns]))
    return [float(x) for x in np.percentile(drawn, INTERVAL)]


def contradictions(active: np.ndarray) -> dict[str, float]:
    """Share of images with flags that no face can show together."""
    column = {au: active[:, AUS.index(au)] for au in AUS}
    wrong = {f"AU{a:02d} and AU{b:02d}": column[a] & column[b] for a, b in EXCLUSIVE}
    wrong |= {f"AU{a:02d} without AU{b:02d}": column[a] & ~column[b] for a, b in NEEDS}
    shares = {name: float(flags.mean()) for name, flags in wrong.items()}
    return shares | {"any": float(np.any(list(wrong.values()), axis=0).mean())}


def at_rest(active: np.ndarray) -> Figures:
    """How often faces at rest have an active action unit besides AU25."""
    others = [i for i, au in enumerate(AUS) if au != 25]
    by_au = {au_name(AUS[i]): float(active[:, i].mean()) for i in others}
    return {
        "pictures": len(active),
        "any": float(active[:, others].any(axis=1).mean()),
        "by_au": {au: share for au, share in by_au.items() if share},
    }


def brightness(crops: np.ndarray) -> np.ndarray:
    """(F,) mean brightness of the middle of the face.

    In images of one studio, it shows how light the skin is.
    """
    middle = crops[:, 40:90, 40:88].astype(float)
    return middle.mean(axis=(1, 2, 3))


def rest_figures(net: MDHR, stills: Source, faces: Source, faces_active: np.ndarray) -> Figures:
    """False alarms in faces at rest, in groups, and smiles found."""
    limits = thresholds(net)
    studio = np.char.startswith(stills.columns["picture"].astype(str), STUDIO)
    images = stills.columns["picture"][studio].astype(str)
    crops = stills.crops[np.flatnonzero(studio)]
    active = aligned(net, coded_odds(net, stills, studio, False)) >= limits
    # The first 20 of the studio are women, the others men; see stills_sources.csv.
    number = np.array([int(name.split("_")[1].split(".")[0]) for name in images])
    light = brightness(crops)
    dark = light < np.median(light)
    mine = faces.of_split("test") & faces.coded
    grade = mean_grade(faces.columns["grades"][mine].astype(float))
    others = [i for i, au in enumerate(AUS) if au != 25]
    nothing = np.nanmax(grade[:, others], axis=1) <= 0.25
    happy = (faces.columns["emotion"] == "happiness")[mine]
    return {
        "studio": at_rest(active),
        "studio women": at_rest(active[number < 20]),
        "studio men": at_rest(active[number >= 20]),
        "studio darker half": at_rest(active[dark]),
        "studio lighter half": at_rest(active[~dark]),
        "faces coded without any AU": at_rest(faces_active[nothing]),
        "AU12 in faces labelled happiness": float(faces_active[happy][:, AUS.index(12)].mean()),
        "faces labelled happiness": int(happy.sum()),
    }


def with_resting_face(net: MDHR, clips: Source, mine: np.ndarray) -> Figures:
    """Mean r on coded frames with a person baseline, and without.

    The resting face is a low quantile of the scores of all frames of the clip, as in
    `AUResult.baseline(quantile=0.1)`.
    """
    everything = np.full((len(mine), len(AUS)), np.nan)
    wanted = np.isin(clips.columns["clip"], np.unique(clips.columns["clip"][mine]))
    everything[wanted] = aligned(net, coded_odds(net, clips, wanted, True))
    adjusted = everything.copy()
    for name in np.unique(clips.columns["clip"][mine]):
        frames = clips.columns["clip"] == name
        rest = np.quantile(everything[frames], REST_QUANTILE, axis=0)
        odds = logit(everything[frames].clip(1e-6, 1 - 1e-6))
        adjusted[frames] = expit(odds - own_part(rest, thresholds(net).clip(0, 0.95)))
    grade = mean_grade(clips.columns["grades"][mine].astype(float))

    def mean_r(scores: np.ndarray) -> float:
        columns = [AUS.index(au) for au in JUDGED]
        found = [correlation(scores[mine, i], grade[:, i]) for i in columns]
        return float(np.nanmean(found))

    au4 = AUS.index(4)
    return {
        "without": mean_r(everything),
        "with": mean_r(adjusted),
        "AU04 without": correlation(everything[mine, au4], grade[:, au4]),
        "AU04 with": correlation(adjusted[mine, au4], grade[:, au4]),
    }


def without_parts(model: Path, clips: Source, mine: np.ndarray) -> dict[str, float]:
    """Mean r on coded frames without the parts of the network that use neighbouring frames."""
    grade = mean_grade(clips.columns["grades"][mine].astype(float))
    variants = {
        "whole": ((), True),
        "without dynamics": (("dynamics",), True),
        "without temporal convolution": (("temporal",), True),
        "without both": (("dynamics", "temporal"), True),
        "each frame as a picture": ((), False),
    }
    result = {}
    for name, (parts, in_motion) in variants.items():
        net = load_model(model)
        leave_out(net, parts)
        scores = aligned(net, coded_odds(net, clips, mine, in_motion))
        columns = [AUS.index(au) for au in JUDGED]
        found = [correlation(scores[:, i], grade[:, i]) for i in columns]
        result[name] = float(np.nanmean(found))
    return result


def rounded(value: Any) -> Any:
    """The same with figures of three decimals; NaN becomes None."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 3)
    return value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="what prepare.py wrote")
    parser.add_argument("--model", type=Path, required=True, help="a model directory")
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    net = load_model(args.model)
    names = (args.data / "blendshapes.txt").read_text().split()
    sources = {name: Source.load(args.data, name) for name in ("faces", "clips", "stills")}
    report: Figures = {"model": net.config.name, "version": net.config.version, "split": args.split}
    flags = {}
    for name, key in (("faces", "faces"), ("clips", "frames")):
        source = sources[name]
        mine = source.of_split(args.split) & source.coded
        scores = aligned(net, coded_odds(net, source, mine, in_motion=name == "clips"))
        report[key] = against_coders(net, source, mine, scores, names)
        flags[name] = scores >= thresholds(net)
    clips = sources["clips"]
    coded_clips = clips.of_split(args.split) & clips.coded
    report["contradictions"] = contradictions(np.concatenate(list(flags.values())))
    report["time"] = without_parts(args.model, clips, coded_clips)
    report["own resting face"] = with_resting_face(net, clips, coded_clips)
    if args.split == "test":
        report["rest"] = rest_figures(net, sources["stills"], sources["faces"], flags["faces"])
    text = json.dumps(rounded(report), indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
