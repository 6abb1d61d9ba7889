r"""Step 3: figures on people who were never trained on.

python training/evaluate.py --data ../runs/data --model ../runs/lite/final.pt --split test --out report.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from data import AUS, TEACHER
from sampling import Source, centre
from sklearn.metrics import precision_recall_curve, roc_auc_score

from pyfau.models.config import MDHRConfig
from pyfau.models.mdhr import CONTEXT, MDHR, FrameFeatures
from pyfau.weights.store import load_model

PRESENT = 0.3  # a rendered intensity over it counts as present
TEACHER_PRESENT = 0.35  # and so does a target from the teacher over this
LIPS_PARTED = 0.08  # and a gap between the inner lips over this, in distances of the outer eye corners


@torch.inference_mode()
def score_runs(model: MDHR, source: Source, stills: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores and targets (F, N) of every crop, by the continuous window, and the number of each one's run.

    Args:
        model: The network.
        source: The crops.
        stills: Score each frame as if it were a picture of its own: the single-frame ablation.
    """
    model.eval()
    scores, index, number = [], [], []
    for run, (start, stop) in enumerate(source.runs):
        crops = torch.from_numpy(np.array(source.crops[start:stop])).movedim(-1, -3)
        x = (centre(crops).float() - model.mean) / model.std
        parts = [model.encode(part.contiguous(memory_format=torch.channels_last)) for part in x.split(64)]
        features = FrameFeatures.cat(parts)
        if stills:
            frames = [f.repeat_interleave(2 * CONTEXT + 1, 0) for f in (features.static, features.dynamic)]
            windows = FrameFeatures(*frames).unflatten(len(x), 2 * CONTEXT + 1)
            scores.append(model.relate(windows, "inner")[:, 0])
        else:
            order = torch.arange(-CONTEXT, len(x) + CONTEXT).clamp(0, len(x) - 1)
            scores.append(model.relate(features[order].unflatten(1, len(order)), "inner")[0])
        index.append(np.arange(start, stop))
        number.append(np.full(stop - start, run))
    order_of = np.concatenate(index)
    return torch.cat(scores).numpy(), source.targets[order_of], np.concatenate(number)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    known = ~np.isnan(b)
    a, b = a[known], b[known]
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() > 1e-6 and b.std() > 1e-3 else float("nan")


def report(model: MDHR, data: Path, split: str, stills: bool = False) -> dict:
    """Correlation with the teacher on clips and faces, ROC-AUC on rendered people, by AU."""
    result: dict = {"split": split, "stills": stills, "aus": {}}
    clip_scores, clip_targets, clip_runs = score_runs(model, Source.load(data, "clips", split), stills)
    face_scores, face_targets, _ = score_runs(model, Source.load(data, "faces", split))
    drawn_scores, drawn_targets, _ = score_runs(model, Source.load(data, "rendered", split), stills)
    for i, au in enumerate(AUS):
        figures = {}
        if au in TEACHER:
            within = []
            for run in np.unique(clip_runs):
                mine = clip_runs == run
                if mine.sum() >= 30 and np.nanstd(clip_targets[mine, i]) > 0.03:
                    within.append(correlation(clip_scores[mine, i], clip_targets[mine, i]))
            figures["clips_pooled_r"] = correlation(clip_scores[:, i], clip_targets[:, i])
            figures["clips_within_r"] = float(np.nanmean(within)) if within else float("nan")
            figures["faces_r"] = correlation(face_scores[:, i], face_targets[:, i])
        present = drawn_targets[:, i] > PRESENT
        figures["rendered_auc"] = float(roc_auc_score(present, drawn_scores[:, i]))
        figures["rendered_r"] = correlation(drawn_scores[:, i], drawn_targets[:, i])
        result["aus"][f"AU{au:02d}"] = {k: round(v, 3) for k, v in figures.items()}
    rows = result["aus"].values()
    keys = ("clips_pooled_r", "clips_within_r", "faces_r", "rendered_auc", "rendered_r")
    result["summary"] = {k: round(float(np.nanmean([r[k] for r in rows if k in r])), 3) for k in keys}
    result["counts"] = {"clip_frames": len(clip_scores), "faces": len(face_scores), "rendered": len(drawn_scores)}
    return result


def real_faces(model: MDHR, data: Path, split: str) -> dict:
    """What the pictures' emotion labels can show: happiness against neutral, and how often neutral faces fire."""
    scores, _, _ = score_runs(model, Source.load(data, "faces", split))
    with np.load(data / "faces.npz") as arrays:
        mine = arrays["split"] == split
        emotion, parted = arrays["emotion"][mine], arrays["lip_gap"][mine] > LIPS_PARTED
    neutral, happy = emotion == "neutral", emotion == "happiness"
    thresholds = np.array(model.config.thresholds)
    result: dict = {"neutral": int(neutral.sum()), "happiness": int(happy.sum()), "aus": {}}
    both = neutral | happy
    for i, name in enumerate(model.config.au_names):
        result["aus"][name] = {
            "auc_happiness_neutral": round(float(roc_auc_score(happy[both], scores[both, i])), 3),
            "auc_lips_parted": round(float(roc_auc_score(parted, scores[:, i])), 3),
            "active_where_lips_parted": round(float((scores[parted, i] >= thresholds[i]).mean()), 3),
            "active_where_closed": round(float((scores[~parted, i] >= thresholds[i]).mean()), 3),
            "active_in_neutral": round(float((scores[neutral, i] >= thresholds[i]).mean()), 3),
            "r_with_AU12": round(float(np.corrcoef(scores[:, i], scores[:, AUS.index(12)])[0, 1]), 3),
        }
    return result


def choose_thresholds(model: MDHR, data: Path, split: str) -> dict:
    """The threshold of each AU with the best F1, and the precision and recall that it gives.

    Present means: the teacher's target is over 0.35, on clips and faces together; for AU6 and AU9, which the teacher
    lacks, a rendered intensity over 0.3. These two may besides fire on at most 5 % of the neutral real faces. For AU25,
    whose target follows the lower lip and is small where only the upper one is raised: the inner lips of a face are
    apart by more than 0.08 of the distance between the outer corners of the eyes.
    """
    clips = score_runs(model, Source.load(data, "clips", split))[:2]
    faces = score_runs(model, Source.load(data, "faces", split))[:2]
    rendered = score_runs(model, Source.load(data, "rendered", split))[:2]
    with np.load(data / "faces.npz") as arrays:
        mine = arrays["split"] == split
        neutral, parted = arrays["emotion"][mine] == "neutral", arrays["lip_gap"][mine] > LIPS_PARTED
    chosen = {}
    for i, au in enumerate(AUS):
        least = 0.0
        if au == 25:
            scores, present = faces[0][:, i], parted
        elif au in TEACHER:
            scores = np.concatenate([clips[0][:, i], faces[0][:, i]])
            targets = np.concatenate([clips[1][:, i], faces[1][:, i]])
            known = ~np.isnan(targets)
            scores, present = scores[known], targets[known] > TEACHER_PRESENT
        else:
            scores, present = rendered[0][:, i], rendered[1][:, i] > PRESENT
            least = float(np.quantile(faces[0][neutral, i], 0.95))
        precision, recall, thresholds = precision_recall_curve(present, scores)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        allowed = np.flatnonzero(thresholds >= least)
        best = allowed[np.argmax(f1[allowed])] if len(allowed) else len(thresholds) - 1
        chosen[f"AU{au:02d}"] = {
            "threshold": round(float(thresholds[best]), 3),
            "precision": round(float(precision[best]), 3),
            "recall": round(float(recall[best]), 3),
            "positives": int(present.sum()),
        }
    return chosen


def load(path: Path) -> MDHR:
    """final.pt of train.py, or the model directory that export.py wrote, which has its thresholds."""
    if path.is_dir():
        return load_model(path)
    saved = torch.load(path, weights_only=True)
    model = MDHR(MDHRConfig.from_json(saved["config"], str(path)))
    model.load_state_dict(saved["state"])
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--stills", action="store_true", help="the single-frame ablation")
    parser.add_argument("--thresholds", action="store_true", help="choose thresholds on this split instead")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(args.model)
    if args.thresholds:
        result = choose_thresholds(model, args.data, args.split)
    else:
        result = report(model, args.data, args.split, args.stills)
        result["real_faces"] = real_faces(model, args.data, args.split)
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
