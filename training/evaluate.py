r"""Step 4: figures on people who were never trained on, and contact sheets.

    python training/evaluate.py --data ../runs/data --model pyfau/assets/mdhr-lite --out ../runs/lite/report.json \
        --sheets ../runs/lite/sheets
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from data import AUS, CROP, HERE, JUDGED, PRESENT, PRESENT_RENDERED, TEACHER, TEMPLATE
from sampling import Source, shrink
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from pyfau.baseline import own_part
from pyfau.models.config import MDHRConfig
from pyfau.models.mdhr import CONTEXT, MDHR, FrameFeatures
from pyfau.weights.store import load_model

SOURCES = ("clips", "faces", "rendered")
LIPS_PARTED = 0.08  # a gap between the inner lips over this, in distances of the outer eye corners
LEAST_FRAMES, LEAST_MOTION = 30, 0.03  # of a clip, for a correlation within it
LEAST_RENDERED = 12  # and frames of a rendered sequence, which has 16
RESTING = 0.05  # where no rendered intensity is over it the face is at rest
MOST_NEUTRAL = 0.1  # share of neutral faces in which an AU may be active at its threshold
MOST_PICTURES = 20  # as so many do the frames of a person count together in calibration
BINS = 15
DRAWS, INTERVAL = 500, (5, 95)  # of people with replacement, and the percentiles of a figure over them
SHEET = 40  # pictures of a contact sheet
Change = Callable[[np.ndarray], np.ndarray]


@dataclass
class Scored:
    """Every crop of a source, scored.

    Attributes:
        scores: (F, N).
        targets: (F, N); NaN where unknown.
        runs: (F,) number of the run of each.
        index: (F,) which crop each is.
    """

    scores: np.ndarray
    targets: np.ndarray
    runs: np.ndarray
    index: np.ndarray


@torch.inference_mode()
def score(model: MDHR, source: Source, mode: str = "windows", change: Change | None = None) -> Scored:
    """Score every crop by the continuous window.

    Args:
        model: The network.
        source: The crops.
        mode: "windows", as at run time; "stills": each frame as if it were a picture of its own; "frames": the part of
            the network that training with single crops knows, without the dynamic branch.
        change: Applied to each crop, (CROP, CROP, 3) uint8.
    """
    model.eval()
    pictures = bool(np.all(source.runs[:, 1] - source.runs[:, 0] == 1))
    pieces = [np.arange(*run) for run in source.runs]
    if pictures:
        pieces = np.array_split(np.concatenate(pieces), max(1, len(pieces) // 64))
    scores = []
    for piece in pieces:
        crops = shrink(source.crops[torch.from_numpy(piece)].movedim(-1, -3))
        if change is not None:
            changed = [change(np.ascontiguousarray(crop)) for crop in crops.movedim(-3, -1).numpy()]
            crops = torch.from_numpy(np.stack(changed)).movedim(-1, -3)
        x = ((crops.to(model.device).float() - model.mean) / model.std).contiguous(memory_format=torch.channels_last)
        features = FrameFeatures.cat([model.encode(part) for part in x.split(64)])
        if mode == "frames":
            scores.append(model.relate_tokens(features.static[:, None])[0][:, 0])
        elif mode == "stills" or pictures:
            for start in range(0, len(x), 64):
                few = features[start : start + 64]
                repeated = [f.repeat_interleave(2 * CONTEXT + 1, 0) for f in (few.static, few.dynamic)]
                windows = FrameFeatures(*repeated).unflatten(len(few), 2 * CONTEXT + 1)
                scores.append(model.relate(windows, "inner")[:, 0])
        else:
            order = torch.arange(-CONTEXT, len(x) + CONTEXT).clamp(0, len(x) - 1)
            scores.append(model.relate(features[order].unflatten(1, len(order)), "inner")[0])
    index = np.concatenate(pieces)
    runs = np.concatenate([np.full(len(piece), number) for number, piece in enumerate(pieces)])
    return Scored(torch.cat(scores).float().cpu().numpy(), source.targets.numpy()[index], runs, index)


def uncalibrated(model: MDHR) -> MDHR:
    """The network, set to give the scores of its head as they are."""
    model.slope.fill_(1.0)
    model.offset.fill_(0.0)
    model.config = dataclasses.replace(model.config, calibration=())
    return model


def log_odds(scores: np.ndarray) -> np.ndarray:
    return logit(scores.clip(1e-6, 1 - 1e-6))


def calibrate(scores: np.ndarray, calibration: Sequence[Sequence[float]]) -> np.ndarray:
    """(F, N) scores of the head to calibrated ones, as `MDHR.classify` does it."""
    if not len(calibration):
        return scores
    slope, offset = np.array(calibration).T
    return expit(slope * log_odds(scores) + offset)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    known = ~np.isnan(b)
    a, b = a[known], b[known]
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() > 1e-6 and b.std() > 1e-3 else float("nan")


def correlations(scored: Scored, columns: Sequence[int], frames: np.ndarray) -> np.ndarray:
    """Correlation over some frames, for each of some columns."""
    s, y = scored.scores[frames], scored.targets[frames]
    return np.array([correlation(s[:, i], y[:, i]) for i in columns])


def within_each(scored: Scored, column: int, frames: int = LEAST_FRAMES) -> np.ndarray:
    """Correlation within each clip, (R,) in the order of their numbers; NaN: too few frames, or the target is still."""
    found = []
    for run in np.unique(scored.runs):
        mine = scored.runs == run
        moves = mine.sum() >= frames and np.nanstd(scored.targets[mine, column]) > LEAST_MOTION
        found.append(correlation(scored.scores[mine, column], scored.targets[mine, column]) if moves else np.nan)
    return np.array(found)


def within(scored: Scored, column: int, frames: int = LEAST_FRAMES) -> float:
    """Mean over clips of so many frames of the correlation within each, where the target moves at all."""
    found = within_each(scored, column, frames)
    return float(np.nanmean(found)) if not np.isnan(found).all() else float("nan")


def moved(scored: Scored, column: int) -> float:
    """Correlation of how scores and targets deviate from their means in each clip, over the frames of all clips."""
    known = ~np.isnan(scored.targets[:, column])
    frame = pd.DataFrame({"score": scored.scores[known, column], "target": scored.targets[known, column]})
    deviations = frame - frame.groupby(scored.runs[known]).transform("mean")
    return correlation(deviations["score"].to_numpy(), deviations["target"].to_numpy())


def besides_rest(scored: Scored) -> tuple[np.ndarray, np.ndarray]:
    """Which frames of rendered people are not at rest while others of the same run are, and how these differ.

    Returns:
        (M,) indices of those frames, and (M, N) by how much their log-odds exceed the median of the run at rest.
    """
    odds = pd.DataFrame(log_odds(scored.scores))
    resting = scored.targets.max(axis=1) <= RESTING
    rest = odds[resting].groupby(scored.runs[resting]).median()
    mine = np.flatnonzero(~resting & np.isin(scored.runs, rest.index))
    return mine, odds.to_numpy()[mine] - rest.loc[scored.runs[mine]].to_numpy()


def with_baseline(drawn: Scored, thresholds: Sequence[float]) -> dict:
    """ROC-AUC of calibrated scores of those frames, as they are and with the person's baseline (`pyfau.baseline`)."""
    moving, change = besides_rest(drawn)
    odds, present = log_odds(drawn.scores[moving]), drawn.targets[moving] > PRESENT_RENDERED
    adjusted = odds - own_part(expit(odds - change), thresholds)
    areas = [[area(present[:, i], x[:, i]) for x in (odds, adjusted)] for i in range(len(AUS))]
    result = {f"AU{au:02d}": [round(x, 3) for x in mine] for au, mine in zip(AUS, areas, strict=True)}
    return result | {"mean": [round(float(x), 3) for x in np.nanmean(areas, axis=0)], "frames": len(moving)}


def calibration_error(scores: np.ndarray, present: np.ndarray) -> float:
    """Expected calibration error: mean over bins of equal width of |mean score - share present|, by frames."""
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    return float(
        sum(
            abs(float(scores[bins == b].mean()) - float(present[bins == b].mean())) * float((bins == b).mean())
            for b in np.unique(bins)
        )
    )


def area(present: np.ndarray, scores: np.ndarray) -> float:
    return float(roc_auc_score(present, scores)) if 0 < present.sum() < len(present) else float("nan")


def score_sources(model: MDHR, data: Path, split: str, mode: str = "windows") -> dict[str, Scored]:
    """`score` of every source."""
    return {name: score(model, Source.load(data, name, split, proxies=True), mode) for name in SOURCES}


def agreement(scored: Mapping[str, Scored]) -> dict:
    """Agreement with the teacher on clips and faces, and ROC-AUC on rendered people, by AU."""
    clips, faces, drawn = (scored[name] for name in SOURCES)
    moving, change = besides_rest(drawn)
    result: dict = {"aus": {}}
    for i, au in enumerate(AUS):
        figures = {}
        if au in TEACHER:
            figures["clips_pooled_r"] = correlation(clips.scores[:, i], clips.targets[:, i])
            figures["clips_within_r"] = within(clips, i)
            figures["clips_moved_r"] = moved(clips, i)
            figures["faces_r"] = correlation(faces.scores[:, i], faces.targets[:, i])
        present = drawn.targets[:, i] > PRESENT_RENDERED
        figures["rendered_auc"] = area(present, drawn.scores[:, i])
        figures["rendered_auc_moving"] = area(present[moving], drawn.scores[moving, i])
        figures["rendered_auc_from_rest"] = area(present[moving], change[:, i])
        figures["rendered_r"] = correlation(drawn.scores[:, i], drawn.targets[:, i])
        figures["rendered_within_r"] = within(drawn, i, LEAST_RENDERED)
        result["aus"][f"AU{au:02d}"] = {k: round(v, 3) for k, v in figures.items()}
    for name, chosen in (("summary", AUS), ("judged", JUDGED)):
        rows = [result["aus"][f"AU{au:02d}"] for au in chosen]
        keys = dict.fromkeys(k for row in rows for k in row)
        result[name] = {k: round(float(np.nanmean([r[k] for r in rows if k in r])), 3) for k in keys}
    result["counts"] = {name: len(s.scores) for name, s in scored.items()}
    return result


def people_of(data: Path, clips: Scored) -> np.ndarray:
    """(F,) whom each frame of the clips shows."""
    with np.load(data / "clips.npz") as arrays:
        return arrays["person"][clips.index]


def draws_of_people(people: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of the frames of as many people as there are, drawn with replacement, DRAWS times: a bootstrap."""
    frames = [np.flatnonzero(people == person) for person in np.unique(people)]
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        yield np.concatenate([frames[k] for k in rng.integers(len(frames), size=len(frames))])


def by_people(clips: Scored, people: np.ndarray) -> dict:
    """How far correlations over clips depend on who is there.

    Args:
        clips: Their frames.
        people: (F,) whom each shows.

    Returns:
        For each AU that has a teacher, and for the mean of `JUDGED`, the interval in which nine of ten draws of people
        lie, and which single person lowers the figure most, with what it is without them.
    """
    columns = [i for i, au in enumerate(AUS) if au in TEACHER]

    def figures(frames: np.ndarray) -> np.ndarray:
        found = correlations(clips, columns, frames)
        return np.append(found, np.nanmean(found[[AUS[i] in JUDGED for i in columns]]))

    low, high = np.nanpercentile([figures(frames) for frames in draws_of_people(people)], INTERVAL, axis=0)
    persons = np.unique(people)
    without = np.nan_to_num([figures(np.flatnonzero(people != person)) for person in persons], nan=-1.0)
    names = [*(f"AU{AUS[i]:02d}" for i in columns), "judged"]
    return {
        name: {
            "interval": [round(float(low[k]), 3), round(float(high[k]), 3)],
            "without": str(persons[without[:, k].argmax()]),
            "r_without": round(float(without[:, k].max()), 3),
        }
        for k, name in enumerate(names)
    }


def labelled(scored: Mapping[str, Scored], column: int, au: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the frames that somebody has labelled for an AU, those of the clips first, and whether it is present.

    The teacher's binarised target on clips and faces, and for AU6 and AU9 their stand-ins (`proxy_targets`, loaded as
    targets); for AU9, which real faces hardly show, the renderer's intensity, too.
    """
    parts = [(scored[name], PRESENT[au]) for name in ("clips", "faces")]
    if au == 9:
        parts = [*parts, (scored["rendered"], PRESENT_RENDERED)]
    scores = np.concatenate([s.scores[:, column] for s, _ in parts])
    targets = np.concatenate([s.targets[:, column] - limit for s, limit in parts])
    known = ~np.isnan(targets)
    return scores[known], targets[known] > 0


def occurrence(scored: Mapping[str, Scored], thresholds: Sequence[float]) -> dict:
    """How good the calibrated scores are as probabilities, and the thresholded answers as answers."""
    result: dict = {}
    for i, au in enumerate(AUS):
        scores, present = labelled(scored, i, au)
        active = scores >= thresholds[i]
        found = float((active & present).sum())
        result[f"AU{au:02d}"] = {
            "calibration_error": round(calibration_error(scores, present), 3),
            "auc": round(area(present, scores), 3),
            "average_precision": round(float(average_precision_score(present, scores)), 3) if present.any() else None,
            "precision": round(found / active.sum(), 3) if active.any() else None,
            "recall": round(found / present.sum(), 3) if present.any() else None,
            "share_present": round(float(present.mean()), 3),
        }
    return result


def choose(scored: Mapping[str, Scored], people: np.ndarray, neutral: np.ndarray) -> dict:
    """Calibration and threshold of each AU, from the scores of the head on the second split.

    Calibration: a logistic regression of the binarised label (`labelled`) on the log-odds of the score. The threshold
    is the calibrated score with the best F1 among those at which the AU is active in at most a tenth of the faces that
    a person called neutral; a face with parted lips may well be called so, and AU25 is free of that. In both, all
    frames of a person of the clips count together as at most MOST_PICTURES pictures.

    Args:
        scored: Every source.
        people: Who each frame of the clips shows.
        neutral: Which of the faces were called so.
    """
    chosen: dict = {}
    for i, au in enumerate(AUS):
        scores, present = labelled(scored, i, au)
        if not 0 < present.sum() < len(present):
            raise SystemExit(f"AU{au:02d}: cannot be calibrated, it is present in {present.sum()} of {len(present)}")
        frames = pd.Series(people[~np.isnan(scored["clips"].targets[:, i])])
        weights = np.ones(len(scores))
        weights[: len(frames)] = np.minimum(1, MOST_PICTURES / frames.map(frames.value_counts()))
        odds = log_odds(scores)
        fit = LogisticRegression(C=1e3).fit(odds[:, None], present, sample_weight=weights)
        slope, offset = max(float(fit.coef_[0, 0]), 1e-2), float(fit.intercept_[0])
        calibrated = expit(slope * odds + offset)
        precision, recall, thresholds = precision_recall_curve(present, calibrated, sample_weight=weights)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        quiet = calibrate(scored["faces"].scores[neutral, i, None], [(slope, offset)])[:, 0]
        least = 0.0 if au == 25 else np.quantile(quiet, 1 - MOST_NEUTRAL)
        allowed = np.flatnonzero(thresholds > least)
        best = allowed[np.argmax(f1[allowed])] if len(allowed) else len(thresholds) - 1
        chosen[f"AU{au:02d}"] = {
            "slope": round(slope, 4),
            "offset": round(offset, 4),
            "threshold": round(float(thresholds[best]), 3),
            "precision": round(float(precision[best]), 3),
            "recall": round(float(recall[best]), 3),
            "calibration_error": round(calibration_error(calibrated, present), 3),
            "positives": int(present.sum()),
        }
    return chosen


@dataclass
class Faces:
    """What is known of the pictures of a split besides their targets."""

    crops: np.ndarray
    emotion: np.ndarray
    lip_gap: np.ndarray
    yaw: np.ndarray
    number: np.ndarray

    @classmethod
    def load(cls, data: Path, split: str) -> Faces:
        """Of what prepare.py wrote, in the order of `Source.runs`."""
        crops = np.load(data / "faces_crops.npy", mmap_mode="r")
        with np.load(data / "faces.npz") as arrays:
            mine = np.flatnonzero(arrays["split"] == split)
            names = ("emotion", "lip_gap", "yaw", "index")
            emotion, lip_gap, yaw, number = (arrays[name][mine] for name in names)
        return cls(crops[mine], emotion, lip_gap, np.degrees(yaw), number)

    def accessories(self) -> dict[str, np.ndarray]:
        """Which test faces wear glasses, wear none, or have a hand before them, of those that were looked at."""
        seen = json.loads((HERE / "accessories.json").read_text())
        glasses, hand = (np.isin(self.number, seen[name]) for name in ("glasses", "hand"))
        return {"glasses": glasses, "no glasses": (self.number <= seen["looked_at_up_to"]) & ~glasses, "hand": hand}

    def tone(self) -> np.ndarray:
        """How light the skin is in the picture, in [0, 255]: the median of both cheeks. Light and skin in one."""
        return np.median(np.concatenate([p.reshape(len(p), -1) for p in cheeks(self.crops)], axis=1), axis=1)


def cheeks(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patches on both cheeks of stored crops, grey."""
    grey = crops[:, 64:80].mean(axis=-1)
    return grey[:, :, 36:50], grey[:, :, 78:92]


def real_faces(scores: np.ndarray, faces: Faces, thresholds: Sequence[float]) -> dict:
    """What the pictures' emotion labels can show: happiness against neutral, and how often neutral faces fire."""
    neutral, happy = faces.emotion == "neutral", faces.emotion == "happiness"
    parted, both = faces.lip_gap > LIPS_PARTED, neutral | happy
    result: dict = {"neutral": int(neutral.sum()), "happiness": int(happy.sum()), "aus": {}}
    flags = scores >= np.asarray(thresholds)
    besides = np.delete(flags, AUS.index(25), axis=1)
    result["neutral_with_an_active_au"] = round(float(flags[neutral].any(axis=1).mean()), 3)
    result["the_same_besides_AU25"] = round(float(besides[neutral].any(axis=1).mean()), 3)
    for i, au in enumerate(AUS):
        active = flags[:, i]
        result["aus"][f"AU{au:02d}"] = {
            "auc_happiness_neutral": round(area(happy[both], scores[both, i]), 3),
            "auc_lips_parted": round(area(parted, scores[:, i]), 3),
            "active_in_neutral": round(float(active[neutral].mean()), 3),
            "active": int(active.sum()),
            "happiness_where_active": int(happy[active].sum()),
            "active_where_lips_parted": round(float(active[parted].mean()), 3),
            "active_where_closed": round(float(active[~parted].mean()), 3),
            "r_with_AU12": round(correlation(scores[:, i], scores[:, AUS.index(12)]), 3),
        }
    return result


def _shrunk(crop: np.ndarray, side: int) -> np.ndarray:
    small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (CROP, CROP), interpolation=cv2.INTER_LINEAR)


def _packed(crop: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def _dark(crop: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 5, crop.shape)
    return (crop * 0.2 + noise).clip(0, 255).astype(np.uint8)


def _covered(crop: np.ndarray, top: int, bottom: int, left: int = 0) -> np.ndarray:
    crop = crop.copy()
    crop[top:bottom, left:] = (196, 160, 140)
    return crop


EYES_APART = (TEMPLATE[1][0] - TEMPLATE[0][0]) * CROP  # pixels between the eyes of a crop
CHANGES: dict[str, Change] = {
    "grey": lambda c: np.repeat(c.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8),
    "a fifth of the light, with noise": _dark,
    "blur, sigma 2 px": lambda c: cv2.GaussianBlur(c, (0, 0), 2.0),
    "JPEG quality 15": lambda c: _packed(c, 15),
    "32 px between the eyes": lambda c: _shrunk(c, round(CROP * 32 / EYES_APART)),
    "16 px between the eyes": lambda c: _shrunk(c, round(CROP * 16 / EYES_APART)),
    "mouth covered": lambda c: _covered(c, 63, 100),
    "right third covered": lambda c: _covered(c, 0, CROP, 73),
}


def robustness(model: MDHR, data: Path, split: str, faces: Faces, base: Scored) -> dict:
    """The same pictures, worse: mean correlation with the teacher and mean ROC-AUC over the AUs it knows well."""

    def figures(scored: Scored, mine: np.ndarray) -> dict:
        columns = [AUS.index(au) for au in JUDGED]
        s, y = scored.scores[mine], scored.targets[mine]
        present = [y[:, i] > PRESENT[AUS[i]] for i in columns]
        return {
            "r": round(float(np.nanmean(correlations(scored, columns, mine))), 3),
            "auc": round(float(np.nanmean([area(p, s[:, i]) for p, i in zip(present, columns, strict=True)])), 3),
            "error": round(float(np.nanmean(np.abs(s - y)[:, columns])), 3),
            "frames": int(mine.sum()),
        }

    everything = np.ones(len(base.scores), bool)
    result = {"as they are": figures(base, everything)}
    source = Source.load(data, "faces", split)
    for name, change in CHANGES.items():
        changed = score(model, source, change=change)
        result[name] = figures(changed, everything)
        result[name]["mean_change"] = round(float(np.abs(changed.scores - base.scores).mean()), 3)
    turned = np.abs(faces.yaw)
    for low, high in ((0, 10), (10, 20), (20, 30), (30, 45)):
        result[f"yaw {low} to {high} degrees"] = figures(base, (turned >= low) & (turned < high))
    tone = faces.tone()
    dark, light = tone <= np.quantile(tone, 1 / 3), tone >= np.quantile(tone, 2 / 3)
    result["darkest third of the cheeks"], result["lightest third"] = figures(base, dark), figures(base, light)
    if split == "test":
        result |= {name: figures(base, mine) for name, mine in faces.accessories().items()}
    return result


def rendered_groups(drawn: Scored, data: Path) -> dict:
    """ROC-AUC on rendered people, mean over AUs, by how far the head is turned and how light the skin is."""
    crops = np.load(data / "rendered_crops.npy", mmap_mode="r")[drawn.index]
    with np.load(data / "rendered.npz") as arrays:
        turned = np.abs(np.degrees(arrays["yaw"][drawn.index]))
    tone = np.concatenate([p.reshape(len(p), -1) for p in cheeks(crops)], axis=1).mean(axis=1)
    groups = {
        "yaw under 15 degrees": turned < 15,
        "yaw 15 to 30 degrees": (turned >= 15) & (turned < 30),
        "yaw over 30 degrees": turned >= 30,
        "darkest third of the cheeks": tone <= np.quantile(tone, 1 / 3),
        "lightest third": tone >= np.quantile(tone, 2 / 3),
    }
    result = {}
    for name, mine in groups.items():
        present = drawn.targets[mine] > PRESENT_RENDERED
        areas = [area(present[:, i], drawn.scores[mine, i]) for i in range(len(AUS))]
        known = ~np.isnan(areas)
        result[name] = {"auc": round(float(np.mean(areas, where=known)), 3) if known.any() else None}
        result[name]["frames"] = int(mine.sum())
    return result


def write_sheets(folder: Path, scores: np.ndarray, crops: np.ndarray) -> None:
    """For each AU a picture of the highest-scored faces and one of the lowest, from left to right and down."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, au in enumerate(AUS):
        order = np.argsort(-scores[:, i], kind="stable")
        for name, chosen in (("highest", order[:SHEET]), ("lowest", order[-SHEET:])):
            rows = [np.hstack(list(crops[chosen[k : k + 10]])) for k in range(0, len(chosen), 10)]
            width = max(row.shape[1] for row in rows)
            rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
            cv2.imwrite(str(folder / f"AU{au:02d}_{name}.png"), np.vstack(rows)[..., ::-1])


def load(path: Path) -> MDHR:
    """final.pt of train.py, or the model directory that export.py wrote, which has its calibration and thresholds."""
    if path.is_dir():
        return load_model(path)
    saved = torch.load(path, weights_only=True, map_location="cpu")
    if "config" not in saved:
        raise SystemExit(f"{path} is not a network of train.py: expected final.pt or a model directory")
    model = MDHR(MDHRConfig.from_json(saved["config"], str(path)))
    model.load_state_dict(saved["state"])
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--mode", default="windows", choices=("windows", "stills", "frames"), help="see score")
    parser.add_argument("--sheets", type=Path, help="also write contact sheets of the pictures to this folder")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(args.model)
    calibration, thresholds = model.config.calibration, model.config.thresholds
    model = uncalibrated(model)
    head = score_sources(model, args.data, args.split, args.mode)
    final = {n: dataclasses.replace(s, scores=calibrate(s.scores, calibration)) for n, s in head.items()}
    faces = Faces.load(args.data, args.split)
    # the clips have colours, where the pictures are mostly grey
    grey = score(model, Source.load(args.data, "clips", args.split), args.mode, CHANGES["grey"])
    result = {
        "split": args.split,
        "mode": args.mode,
        "head": agreement(head),
        "by_people": by_people(head["clips"], people_of(args.data, head["clips"])),
        "calibrated": agreement(final),
        "occurrence": occurrence(final, thresholds),
        "real_faces": real_faces(final["faces"].scores, faces, thresholds),
        "robustness": robustness(model, args.data, args.split, faces, head["faces"]),
        "without_colour": agreement(head | {"clips": grey})["judged"],
        "rendered": rendered_groups(final["rendered"], args.data),
        "rendered_baseline": with_baseline(final["rendered"], thresholds),
    }
    if args.sheets:
        write_sheets(args.sheets, final["faces"].scores, faces.crops)
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
