"""Score every recording of a folder, one table each, and one line of figures for each face of each recording.

python examples/score_folder.py recordings/ scores/
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from pyfau import AUDetector, AUResult, PyfauError
from pyfau.result import is_complete

VIDEOS = {".mp4", ".mov", ".avi", ".mkv", ".webm"}


def main(folder: Path, out: Path) -> None:
    detector = AUDetector()
    lines = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEOS):
        table = out / f"{path.name}.csv"
        try:
            if is_complete(table, detector.settings()):  # by an earlier run, with the same settings
                result = AUResult.read_csv(table)
            else:
                result = detector.detect_video(path, save=table)
        except PyfauError as error:  # damaged, or no video: the others go on
            print(f"skipped: {error}")
            continue
        frames = result.to_dataframe()
        for face_id, rows in frames[frames.success == 1].groupby("face_id"):
            line = {"recording": path.name, "face_id": face_id, "frames": len(rows)}
            line["share_of_frames"] = len(rows) / frames.frame.nunique()
            line |= {f"{au}_active": rows[f"{au}_c"].mean() for au in result.aus}
            lines.append(line)
    summary = pd.DataFrame(lines)
    summary.to_csv(out / "summary.csv", index=False, float_format="%.4f")
    print(summary.iloc[:, :6].to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of videos")
    parser.add_argument("out", type=Path, help="folder for the tables and summary.csv")
    args = parser.parse_args()
    main(args.folder, args.out)
