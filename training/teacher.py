"""The teacher: MediaPipe's Face Landmarker, as it labels a face that it follows through a video.

In a single picture it looks where its detector points, and in video where it saw the face before; what it says differs
(README.md says by how much). The clips were labelled in video. So a single picture is shown to it several times, as a
video that stands still, until it has settled.

    python training/teacher.py --shared ../shared

prints how well its first look at frames of the test clips, and those that follow, agree with the clips' labels.
"""

from __future__ import annotations

import argparse
import weakref
from pathlib import Path

import numpy as np
from data import AUS, JUDGED, clip_frames, clip_sources, load_splits, teacher_targets
from evaluate import LEAST_FRAMES, Scored, correlation, within

LOOKS, LOOKS_AGAIN = 3, 2  # at a new face, and at one that lies where the last one lay
TEACHER_MODEL = "models/face_landmarker.task"
STEP = 1000  # ms from look to look: too long for its smoothing over time


class Teacher:
    """MediaPipe's Face Landmarker in video mode.

    Args:
        model: Its `face_landmarker.task`.
    """

    def __init__(self, model: Path) -> None:
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise SystemExit(f"labels for pictures need MediaPipe, see docs/aligners.md: {error}") from error
        self.mediapipe = mediapipe
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model)),
            running_mode=vision.RunningMode.VIDEO,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        self.landmarker = vision.FaceLandmarker.create_from_options(options)
        self.time = 0
        weakref.finalize(self, self.landmarker.close)  # before the modules that closing needs are gone

    def look(self, rgb: np.ndarray):
        """What it says of the next picture of the video."""
        self.time += STEP
        pixels = np.ascontiguousarray(rgb)
        picture = self.mediapipe.Image(image_format=self.mediapipe.ImageFormat.SRGB, data=pixels)
        return self.landmarker.detect_for_video(picture, self.time)

    def label(self, rgb: np.ndarray, again: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """What it says of a picture when it has settled.

        Args:
            rgb: (H, W, 3) uint8.
            again: The face lies about where that of the last picture lay.

        Returns:
            None without a face, or: (478, 3) mesh in pixels, x to the right, y down, z away; (52,) blendshapes; (4, 4)
            pose.
        """
        if not again:
            self.look(np.zeros_like(rgb))  # so that it searches
        for _ in range(LOOKS_AGAIN if again else LOOKS):
            found = self.look(rgb)
        if not found.face_blendshapes:
            return None
        height, width = rgb.shape[:2]
        mesh = np.array([(p.x, p.y, p.z) for p in found.face_landmarks[0]]) * (width, height, width)
        shapes = np.array([c.score for c in found.face_blendshapes[0]])
        return mesh, shapes, np.array(found.facial_transformation_matrixes[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="the folder that holds data/ and models/")
    parser.add_argument("--every", type=int, default=4, help="of so many frames one is shown")
    parser.add_argument("--looks", type=int, default=4)
    args = parser.parse_args()
    teacher = Teacher(args.shared / TEACHER_MODEL)
    splits = load_splits()["clips"]
    said, targets, runs = [], [], []
    for number, source in enumerate(clip_sources(args.shared)):
        labels = np.load(args.shared / f"data/clips/{source['name']}.npz")
        names = list(labels["names"])
        if splits[source["person"]] != "test" or len(labels["bs"]) < LEAST_FRAMES * args.every:
            continue
        frames = clip_frames(args.shared, source["name"])[: len(labels["bs"]) : args.every]
        for frame, told, present in zip(
            frames, labels["bs"][:: args.every], labels["present"][:: args.every], strict=True
        ):
            teacher.look(np.zeros_like(frame))
            looks = [teacher.look(frame).face_blendshapes for _ in range(args.looks)]
            if present and all(looks):
                said.append([[c.score for c in look[0]] for look in looks])
                targets.append(told)
                runs.append(number)
    columns = [AUS.index(au) for au in JUDGED]
    labelled = teacher_targets(np.array(targets), names)
    for look, shapes in enumerate(np.array(said).swapaxes(0, 1), start=1):
        scored = Scored(teacher_targets(shapes, names), labelled, np.array(runs), np.arange(len(runs)))
        pooled = [correlation(scored.scores[:, i], scored.targets[:, i]) for i in columns]
        inside = [within(scored, i) for i in columns]
        print(f"look {look}: over clips {np.mean(pooled):.3f}, within clips {np.nanmean(inside):.3f}")


if __name__ == "__main__":
    main()
