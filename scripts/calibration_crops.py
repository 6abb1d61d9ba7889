"""Make the calibration crops of precision "int8" again: `pyfau/assets/calibration`.

    python scripts/calibration_crops.py

Needed only when the template or the input size of the bundled model changes. The faces come from
the openly licensed clips and images of `tests/data/media` and from the portrait of the demo.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from pyfau import load_model
from pyfau.demo import demo_frames
from pyfau.faces.crop import crop_face
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.media.images import read_image
from pyfau.media.readers import read_video

ROOT = Path(__file__).resolve().parents[1]
MEDIA = ROOT / "tests" / "data" / "media"
ASSETS = ROOT / "pyfau" / "assets" / "calibration"
# Clips, the step between frames that are taken, and the last frame with a face.
CLIPS = (
    ("WolfgangLanger_Pexels.mp4", 16, 472),
    ("single_face.mp4", 5, 72),
    ("face_noface.mov", 12, 70),
)
IMAGES = ("multi_face.jpg", "single_face.jpg")
DEMO_STEP = 12
COLUMNS = 8
QUALITY = 90  # of WebP


def images() -> list[np.ndarray]:
    """The images with faces, (H, W, 3) uint8 RGB."""
    found = []
    for name, step, end in CLIPS:
        with read_video(MEDIA / name) as reader:
            found += [f.rgb for f in reader if f.index % step == step // 2 and f.index < end]
    found += [read_image(str(MEDIA / name)) for name in IMAGES]
    return [*found, *demo_frames()[::DEMO_STEP]]


def main() -> None:
    """Write faces.webp, a sheet of crops, and faces.json."""
    config = load_model().config
    size, template = config.input_size, np.array(config.template)
    aligner = MTCNNAligner()
    crops = [
        crop_face(rgb, face.landmarks, template, size)
        for rgb in images()
        for face in aligner.detect(rgb)
    ]
    rows = len(crops) // COLUMNS
    sheet = np.concatenate(
        [np.concatenate(crops[COLUMNS * i : COLUMNS * (i + 1)], axis=1) for i in range(rows)]
    )
    done, packed = cv2.imencode(".webp", sheet[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    if not done:
        raise SystemExit("this build of OpenCV cannot write WebP")
    ASSETS.mkdir(parents=True, exist_ok=True)
    (ASSETS / "faces.webp").write_bytes(packed.tobytes())
    facts = {"input_size": size, "template": config.template}
    (ASSETS / "faces.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"{rows * COLUMNS} crops, {len(packed)} bytes")


if __name__ == "__main__":
    main()
