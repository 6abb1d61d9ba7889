r"""Step 4: write the bundled model.

    python training/export.py --model ../runs/lite/final.pt --calibration ../runs/lite/calibration.json \
        --out pyfau/assets/mdhr-lite

Writes config.json and model.safetensors (float16) and enters template, sha256, size and version into
weights_manifest.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from evaluate import load

from pyfau.weights.store import WEIGHTS_FILE, save_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, help="from evaluate.py --calibrate")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, default=Path(__file__).parents[1] / "weights_manifest.json")
    args = parser.parse_args()
    model = load(args.model)
    if args.calibration:
        chosen = [json.loads(args.calibration.read_text())[au] for au in model.config.au_names]
        model.config = dataclasses.replace(
            model.config,
            calibration=tuple((row["slope"], row["offset"]) for row in chosen),
            thresholds=tuple(row["threshold"] for row in chosen),
        )
    digest = save_model(model, args.out, torch.float16)
    size = (args.out / WEIGHTS_FILE).stat().st_size
    manifest = json.loads(args.manifest.read_text())
    config = model.config
    entry = {"template": config.template, "sha256": digest, "bytes": size, "version": config.version}
    manifest["models"][config.name] |= entry
    args.manifest.write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{args.out}: {size / 1e6:.2f} MB, sha256 {digest}")


if __name__ == "__main__":
    main()
