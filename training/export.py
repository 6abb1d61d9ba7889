"""Step 3: calibrate on the second split, and write the bundled model.

    python training/export.py --data ../runs/data --model ../runs/lite/final.pt --out pyfau/assets/mdhr-lite

Writes config.json, calibration.json (with the precision and recall that each threshold gave there) and
model.safetensors (float16), and enters template, sha256, size and version into weights_manifest.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from evaluate import Faces, choose, load, people_of, score_sources, uncalibrated

from pyfau.weights.store import WEIGHTS_FILE, save_model

SPLIT = "validation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what prepare.py wrote")
    parser.add_argument("--model", type=Path, required=True, help="final.pt of train.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, default=Path(__file__).parents[1] / "weights_manifest.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(args.model)
    scored = score_sources(uncalibrated(model), args.data, SPLIT)
    neutral = Faces.load(args.data, SPLIT).emotion == "neutral"
    chosen = choose(scored, people_of(args.data, scored["clips"]), neutral)
    rows = [chosen[au] for au in model.config.au_names]
    model.config = dataclasses.replace(
        model.config,
        calibration=tuple((row["slope"], row["offset"]) for row in rows),
        thresholds=tuple(row["threshold"] for row in rows),
    )
    digest = save_model(model, args.out, torch.float16)
    (args.out / "calibration.json").write_text(json.dumps(chosen, indent=1) + "\n")
    size = (args.out / WEIGHTS_FILE).stat().st_size
    manifest = json.loads(args.manifest.read_text())
    config = model.config
    entry = {"template": config.template, "sha256": digest, "bytes": size, "version": config.version}
    manifest["models"][config.name] |= entry
    args.manifest.write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{args.out}: {size / 1e6:.2f} MB, sha256 {digest}")


if __name__ == "__main__":
    main()
