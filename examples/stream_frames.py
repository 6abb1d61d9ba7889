"""Score frames as they arrive, as from a camera or a network.

python examples/stream_frames.py clip.mp4
"""

from __future__ import annotations

import argparse

import cv2

from pyfau import AUDetector


def main(video: str) -> None:
    capture = cv2.VideoCapture(video)
    stream = AUDetector(max_faces=1).stream(fps=capture.get(cv2.CAP_PROP_FPS))
    rows = []
    while True:
        ok, bgr = capture.read()
        if not ok:
            break
        rows += stream.push(bgr[..., ::-1])  # rows that are final now: 7 frames late
    rows += stream.flush()
    for row in rows[::10]:
        text = (
            f"smile {row['AU12']:.2f}, eyes closed {row['AU43']:.2f}" if row.success else "no face"
        )
        print(f"{row.time_s:6.2f} s  {text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video")
    main(parser.parse_args().video)
