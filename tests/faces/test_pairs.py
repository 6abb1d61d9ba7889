"""`cheapest_pairs`, compared with every way to make pairs."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from pyfau.faces.pairs import cheapest_pairs


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (2, 2), (3, 4), (4, 2)])
def test_the_sum_of_the_costs_is_the_smallest(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        cost = rng.random(shape)
        pairs = cheapest_pairs(cost)
        rows, columns = zip(*pairs, strict=True)
        assert len(pairs) == len({*rows}) == len({*columns}) == min(shape)
        wide = cost if shape[0] <= shape[1] else cost.T
        sums = [
            sum(wide[i, j] for i, j in enumerate(chosen))
            for chosen in itertools.permutations(range(wide.shape[1]), wide.shape[0])
        ]
        assert sum(cost[i, j] for i, j in pairs) == pytest.approx(min(sums))


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_nothing_to_pair(shape: tuple[int, int]) -> None:
    assert cheapest_pairs(np.zeros(shape)) == []


@pytest.mark.parametrize("aligner", ["mtcnn", "mesh"])
def test_a_face_is_scored_without_scipy(aligner: str) -> None:
    """Its import takes longer than to make the detector."""
    program = (
        "import sys, numpy as np\nfrom pyfau import AUDetector\n"
        "from pyfau.demo import demo_frames\n"
        f"detector = AUDetector(device='cpu', aligner={aligner!r})\nframe = demo_frames()[0]\n"
        "frames = [frame, np.zeros_like(frame), frame]\n"
        "print(len(detector.detect_frames(frames, fps=25)), 'scipy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3", "False"]
