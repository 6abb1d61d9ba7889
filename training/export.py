"""Step 4: calibrate on validation, and write the bundled model.

    python training/export.py --data ../runs/data --model ../runs/lite/student.pt \
        --out pyfau/assets/mdhr-lite

Writes config.json, calibration.json (with the precision and recall of each threshold on validation)
and model.safetensors (float16), and enters template, aligner, sha256, size and version into
weights_manifest.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import torch
from calibration import (
    Fit,
    at_rest,
    calm_down,
    choose_threshold,
    fit_one,
    person_weights,
)
from data import AUS
from network import CONFIG, Trainee, load_trainee
from sampling import Source
from scoring import coded_odds, presence
from targets import mean_grade

from pyfau.aus import au_name
from pyfau.evaluation.metrics import calibration_error
from pyfau.models.config import MDHRConfig
from pyfau.weights.store import WEIGHTS_FILE, save_model

SPLIT = "validation"
SMILES = 0.9  # share of faces that a person labelled happiness in which AU12 is active
MANIFEST = Path(__file__).parents[1] / "weights_manifest.json"


def validation(net: Trainee, data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds (F, N), grades (F, coders, N) and people (F,) of the coded validation images."""
    odds, grades, people = [], [], []
    for name in ("faces", "clips"):
        source = Source.load(data, name)
        mine = source.of_split(SPLIT) & source.coded
        odds.append(coded_odds(net.mdhr, source, mine, in_motion=name == "clips"))
        grades.append(source.columns["grades"][mine])
        people.append(source.columns["person"][mine].astype(str))
    return np.concatenate(odds), np.concatenate(grades), np.concatenate(people)


def smile_limit(net: Trainee, fit: Fit, data: Path) -> float:
    """The threshold of AU12 at which most validation faces labelled happiness are smiles."""
    faces = Source.load(data, "faces")
    happy = faces.columns["emotion"] == "happiness"
    mine = faces.of_split(SPLIT) & faces.coded & happy
    odds = coded_odds(net.mdhr, faces, mine, in_motion=False)[:, AUS.index(12)]
    return round(float(np.quantile(fit.score(odds), 1 - SMILES)), 3)


def choose_thresholds(fits: list[Fit], odds: np.ndarray, grades: np.ndarray) -> np.ndarray:
    """(N,) thresholds: the best F1 of each action unit, with few false alarms at rest."""
    resting = at_rest(grades)
    scores = np.stack([fit.score(odds[:, i]) for i, fit in enumerate(fits)], axis=1)
    chosen = np.array(
        [
            choose_threshold(scores[:, i], grades[:, :, i], None if au == 25 else resting)
            for i, au in enumerate(AUS)
        ]
    )
    others = [i for i, au in enumerate(AUS) if au != 25]
    present = presence(mean_grade(grades))[:, others]
    chosen[others] = calm_down(chosen[others], scores[:, others], present, resting)
    return chosen


def grade_offsets(net: Trainee) -> np.ndarray:
    """(N, 2) grade offsets that training found."""
    levels = net.levels(torch.zeros(len(AUS))).detach().numpy()
    return levels[:, [0, 2]]


def record(fit: Fit, threshold: float, odds: np.ndarray, grades: np.ndarray) -> dict:
    """The record of one action unit in calibration.json."""
    scores = fit.score(odds)
    present = presence(mean_grade(grades[:, :, None])[:, 0])
    known = ~np.isnan(present)
    scores, truth = scores[known], present[known] == 1
    active = scores >= threshold
    found = int((active & truth).sum())
    return dataclasses.asdict(fit) | {
        "threshold": threshold,
        "precision": round(found / int(active.sum()), 3) if active.any() else None,
        "recall": round(found / int(truth.sum()), 3) if truth.any() else None,
        "calibration_error": round(calibration_error(truth.astype(float), scores), 3),
        "present": int(truth.sum()),
        "absent": int((~truth).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="what prepare.py wrote")
    parser.add_argument("--model", type=Path, required=True, help="a network of train.py")
    parser.add_argument("--out", type=Path, required=True, help="the model directory")
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    args = parser.parse_args()
    torch.set_num_threads(1)
    net = load_trainee(args.model)
    odds, grades, people = validation(net, args.data)
    weights = person_weights(people)
    fits = [
        fit_one(odds[:, i], grades[:, :, i], weights, float(trace), float(strong))
        for i, (trace, strong) in enumerate(grade_offsets(net))
    ]
    limits = choose_thresholds(fits, odds, grades)
    smile = AUS.index(12)
    limits[smile] = min(limits[smile], smile_limit(net, fits[smile], args.data))
    chosen = {
        au_name(au): record(fit, float(limits[i]), odds[:, i], grades[:, :, i])
        for i, (au, fit) in enumerate(zip(AUS, fits, strict=True))
    }
    model = net.mdhr
    model.config = dataclasses.replace(
        model.config,
        version=CONFIG.version,
        aligner=CONFIG.aligner,
        calibration=tuple((fit.slope, fit.offset) for fit in fits),
        grade_offsets=tuple((fit.trace, fit.strong) for fit in fits),
        thresholds=tuple(row["threshold"] for row in chosen.values()),
    )
    digest = save_model(model, args.out, torch.float16)
    (args.out / "calibration.json").write_text(json.dumps(chosen, indent=1) + "\n")
    size = (args.out / WEIGHTS_FILE).stat().st_size
    enter(args.manifest, model.config, digest, size)
    print(f"{args.out}: {size / 1e6:.2f} MB, sha256 {digest}")


def enter(manifest: Path, config: MDHRConfig, digest: str, size: int) -> None:
    """Put the new weights into the manifest."""
    entries = json.loads(manifest.read_text())
    entries["models"][config.name] |= {
        "aus": list(config.aus),
        "template": config.template,
        "aligner": config.aligner,
        "sha256": digest,
        "bytes": size,
        "version": config.version,
    }
    manifest.write_text(compact(json.dumps(entries, indent=2)) + "\n")


def compact(text: str) -> str:
    """Indented JSON with each list of numbers, and each list of such lists, on one line."""
    for pattern in (r"\[\n[\s\d.,-]+\]", r"\[\n(?:\s*\[[^][\n]*\],?\n)+\s*\]"):
        text = re.sub(pattern, lambda found: json.dumps(json.loads(found[0])), text)
    return text


if __name__ == "__main__":
    main()
