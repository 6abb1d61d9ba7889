"""Score a video, print the strongest action units, and write a table and an overlay.

python examples/score_video.py clip.mp4 out/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pyfau import AU_NAMES, AUDetector


def main(video: str, folder: str) -> None:
    detector = AUDetector(progress=True)
    out = Path(folder)
    # The table is written while the work runs. After a crash, it has the rows so far.
    result = detector.detect_video(video, save=out / "scores.csv", overlay=out / "overlay.mp4")
    print(result)
    for au, mean in result.strongest(3):
        print(f"{au} {AU_NAMES[au]}: {mean:.2f}")
    table = result.to_dataframe()
    seen = table[table.success == 1]
    print(
        f"a face in {len(seen)} of {len(table)} rows; "
        f"AU12 active in {100 * seen.AU12_c.mean():.0f} % of them"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video")
    parser.add_argument("folder", help="for scores.csv and overlay.mp4")
    args = parser.parse_args()
    main(args.video, args.folder)
