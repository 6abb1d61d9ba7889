"""Measures whether people keep their ids, on artificial clips in which known people leave and
return.

    python benchmarks/identity.py ../shared/data/clips [--clips 10] [--people 4] [--threads 1]
    python benchmarks/identity.py ../shared/data/faces [--clips 50] [--people 4] [--threads 1]

The folder has NAME.mp4 and SOURCES.csv with the person of each clip. In an artificial clip, some
people appear three times each, in random order, in one place of the image, with 5 or 20 frames
without a face between them. Each time, another part of the person's own clip is shown. The program
prints the share of returns with the person's old id, the share of appearances with the id of
another person, and the time of the descriptors for one frame.

The second folder has photographs: faces.tar, and teacher.npz with NAME_NUMBER of each. The limits
of `pyfau.faces.people` were not chosen on these people. Each appearance is another photograph, in
most cases from another day. So the share of returns is a lower bound for one recording.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import tarfile
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import torch

from pyfau import AUDetector
from pyfau.faces import people
from pyfau.media.readers import read_video

SIDE, FRAMES, TIMES = 256, 10, 3
GAPS = (5, 20)  # frames: one within max_gap, and one beyond it


def read_people(folder: Path, most: int) -> dict[str, list[np.ndarray]]:
    """For each person three parts of a clip, each (10, 256, 256, 3) uint8."""
    with (folder / "SOURCES.csv").open(encoding="utf-8") as file:
        names = {row["person"]: row["name"] for row in reversed(list(csv.DictReader(file)))}
    found: dict[str, list[np.ndarray]] = {}
    for person, name in sorted(names.items()):
        path = folder / f"{name}.mp4"
        if not path.exists():
            continue
        with read_video(path) as reader:
            frames = [frame.rgb for frame in reader]
        if len(frames) < TIMES * FRAMES:
            continue
        starts = np.linspace(0, len(frames) - FRAMES, TIMES).round().astype(int)
        found[person] = [
            np.stack([cv2.resize(rgb, (SIDE, SIDE)) for rgb in frames[at : at + FRAMES]])
            for at in starts
        ]
        if len(found) == most:
            break
    return found


def read_photographs(folder: Path) -> dict[str, list[np.ndarray]]:
    """For each person with three photographs three parts, each (10, 256, 256, 3) uint8, of one
    photograph that moves a little.
    """
    sources = np.load(folder / "teacher.npz")["source"]
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, source in enumerate(sources):
        numbers[str(source).rsplit("_", 1)[0]].append(number)
    wanted = {
        number: person
        for person, own in numbers.items()
        if len(own) >= TIMES
        for number in (own[0], own[len(own) // 2], own[-1])
    }
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    with tarfile.open(folder / "faces.tar") as images:
        for member in images:
            number = int(Path(member.name).stem)
            if number not in wanted:
                continue
            data = images.extractfile(member)
            assert data is not None  # a file, not a folder
            bgr = cv2.imdecode(np.frombuffer(data.read(), np.uint8), cv2.IMREAD_COLOR)
            found[wanted[number]].append(move(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)))
    return dict(found)


def move(rgb: np.ndarray) -> np.ndarray:
    """(10, 256, 256, 3) uint8: a photograph with its edges repeated, one pixel on in each frame."""
    border = round(0.35 * max(rgb.shape[:2]))
    wide = cv2.copyMakeBorder(rgb, *[border] * 4, cv2.BORDER_REPLICATE)
    wide = cv2.resize(wide, (SIDE + FRAMES, SIDE + FRAMES))
    return np.stack([wide[i : i + SIDE, i : i + SIDE] for i in range(FRAMES)])


def make_clip(
    parts: dict[str, list[np.ndarray]], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[tuple[str, int, int]]]:
    """Frames, and the appearances in them: the person, the first frame, and the gap before."""
    order = [person for person in parts for _ in range(TIMES)]
    while any(a == b for a, b in itertools.pairwise(order)):
        rng.shuffle(order)
    shown = dict.fromkeys(parts, 0)
    frames: list[np.ndarray] = []
    appearances = []
    for person in order:
        gap = int(rng.choice(GAPS)) if frames else 0
        frames += [np.full((SIDE, SIDE, 3), 90, np.uint8)] * gap
        appearances.append((person, len(frames), gap))
        frames += list(parts[person][shown[person]])
        shown[person] += 1
    return frames, appearances


def count(
    ids: dict[int, int], appearances: list[tuple[str, int, int]]
) -> tuple[int, int, int, int]:
    """Returns, returns with the old id, appearances, and appearances with another's id."""
    first: dict[str, int] = {}
    returns = kept = false = seen = 0
    for person, start, _ in appearances:
        # The id at the end of the appearance: until then, pyfau can correct a wrong one.
        found = ids.get(start + FRAMES - 1)
        if found is None:
            continue
        seen += 1
        false += any(found == other for name, other in first.items() if name != person)
        if person in first:
            returns += 1
            kept += found == first[person]
        else:
            first[person] = found
    return returns, kept, seen, false


def main() -> None:
    """Print the figures, with and without `reidentify`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--people", type=int, default=4, help="in each clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    if (args.folder / "faces.tar").exists():
        everybody = read_photographs(args.folder)
    else:
        everybody = read_people(args.folder, 60)
    print(f"{len(everybody)} people")
    describe, spent, described = people.describe_crops, [0.0], [0]

    def timed(crops: np.ndarray) -> np.ndarray:
        started = time.process_time()
        found = describe(crops)
        spent[0] += time.process_time() - started
        described[0] += len(crops)
        return found

    people.describe_crops = timed
    for reidentify in (True, False):
        detector = AUDetector(device="cpu", reidentify=reidentify, measures=False)
        rng = np.random.default_rng(args.seed)
        totals, frame_count = np.zeros(4, int), 0
        spent[0], described[0] = 0.0, 0
        for _ in range(args.clips):
            chosen = rng.choice(sorted(everybody), args.people, replace=False)
            frames, appearances = make_clip({name: everybody[name] for name in chosen}, rng)
            rows = detector.detect_frames(frames, fps=25)
            ids = {row.frame: row.face_id for row in rows if row.face_id is not None}
            totals += count(ids, appearances)
            frame_count += len(frames)
        returns, kept, seen, false = totals.tolist()
        print(
            f"reidentify={reidentify}: {kept} of {returns} returns keep the id "
            f"({kept / max(returns, 1):.1%}); {false} of {seen} appearances have the id of another "
            f"person ({false / max(seen, 1):.1%}); {described[0]} descriptors, "
            f"{spent[0] / frame_count * 1e3:.2f} ms of processor time a frame"
        )


if __name__ == "__main__":
    main()
