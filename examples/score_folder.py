"""Score every recording of a folder.

It writes one table per recording, and one table of features with a row per recording and face. The
features are those of `AUResult.summary`.

python examples/score_folder.py recordings/ scores/
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from pyfau import AUDetector, PyfauError, read_result
from pyfau.result import is_complete

VIDEOS = {".mp4", ".mov", ".avi", ".mkv", ".webm"}


def main(folder: Path, out: Path) -> None:
    detector = AUDetector()
    parts = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEOS):
        table = out / f"{path.name}.csv"
        try:
            if is_complete(table, detector.settings()):  # made before, same settings
                result = read_result(table)
            else:
                result = detector.detect_video(path, save=table)
        except PyfauError as error:  # damaged or not a video: continue with the others
            print(f"skipped: {error}")
            continue
        parts[path.name] = result.summary()
        if parts[path.name].empty:
            print(f"no face: {path}")
    if not parts:
        raise SystemExit(f"no video in {folder} could be scored")
    summary = pd.concat(parts, names=["recording"])
    summary.to_csv(out / "summary.csv", float_format="%.4f")
    print(summary[["frames", "face_share", "AU12_mean", "AU12_active_share"]].to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with videos")
    parser.add_argument("out", type=Path, help="folder for the tables and summary.csv")
    args = parser.parse_args()
    main(args.folder, args.out)
