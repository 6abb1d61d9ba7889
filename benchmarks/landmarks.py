"""The cost of following faces with the aligners "mesh" and "mtcnn", on an image with copies of a
face.

    python benchmarks/landmarks.py [--faces 1 5 20] [--rounds 30]

The program prints medians of the processor time of one thread per face: crops, network and the
rest. The aligners take turns.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import cv2
import numpy as np
import torch
from clips import MEDIA

from pyfau.faces.mesh import MeshAligner
from pyfau.faces.mesh_network import SIDE, MeshNetwork
from pyfau.media.images import read_image
from pyfau.packed import can_pack, pack


def tiles(rgb: np.ndarray, count: int) -> np.ndarray:
    """`count` copies of an image in rows of five."""
    rows = [
        np.concatenate([rgb if row * 5 + i < count else 0 * rgb for i in range(min(count, 5))], 1)
        for row in range(-(-count // 5))
    ]
    return np.ascontiguousarray(np.concatenate(rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    aligner = MeshAligner()
    network = MeshNetwork().eval().requires_grad_(False).to(memory_format=torch.channels_last)
    if can_pack():
        example = torch.zeros(1, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
        pack(network, example)
    rgb = cv2.resize(read_image(MEDIA / "single_face.jpg"), (240, 240))
    print("| faces | mesh, ms a face | its network alone | mtcnn, ms a face |\n|---|---|---|---|")
    for count in args.faces:
        image = tiles(rgb, count)
        faces = aligner.follow(image, aligner.detect(image))
        boxes = [face.box_xyxy for face in faces]
        pixels = torch.rand(min(len(faces), 8), SIDE, SIDE, 3).permute(0, 3, 1, 2)
        calls = {
            "mesh": lambda image=image, faces=faces: aligner.follow(image, faces),
            "network": lambda pixels=pixels: network(pixels),
            "mtcnn": lambda image=image, boxes=boxes: aligner.refine(image, boxes),
        }
        taken: dict[str, list[float]] = {name: [] for name in calls}
        with torch.inference_mode():
            for _ in range(args.rounds + 3):
                for name, call in calls.items():
                    started = time.process_time()
                    call()
                    taken[name].append(1e3 * (time.process_time() - started))
        own = {name: median(values[3:]) for name, values in taken.items()}
        print(
            f"| {len(faces)} | {own['mesh'] / len(faces):.2f} | "
            f"{own['network'] / len(pixels):.2f} | {own['mtcnn'] / len(faces):.2f} |"
        )


if __name__ == "__main__":
    main()
