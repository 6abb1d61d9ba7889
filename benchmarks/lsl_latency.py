"""Time from a frame to its sample at an LSL inlet, in one process.

python benchmarks/lsl_latency.py [FRAMES]

Needs pyfau[lsl]. The stream has latency 0 and one face. Prints the rate, and the median and the
95th percentile of the whole latency and of the part of LSL.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pylsl

from pyfau import AUDetector
from pyfau.demo import demo_frames
from pyfau.lsl import LSLOutlet


def main(count: int) -> None:
    frames = demo_frames()
    detector = AUDetector(max_faces=1)
    stream = detector.stream(fps=25, latency=0)
    with LSLOutlet("pyfau-benchmark", detector.aus) as outlet:
        inlet = pylsl.StreamInlet(pylsl.resolve_byprop("name", "pyfau-benchmark", 1, 10.0)[0])
        inlet.open_stream(10.0)
        whole, transport = [], []
        start = time.monotonic()
        for i in range(count + 5):  # the first frames are slower
            came = time.monotonic()
            rows = stream.push(frames[i % len(frames)])
            scored = time.monotonic()
            outlet.push(rows, came)
            sample, _ = inlet.pull_sample(10.0)
            assert sample is not None
            now = time.monotonic()
            if i >= 5:
                whole.append(1000 * (now - came))
                transport.append(1000 * (now - scored))
        seconds = time.monotonic() - start
    print(f"{count} frames, {(count + 5) / seconds:.1f} per second")
    for name, values in (("frame to receipt", whole), ("LSL alone", transport)):
        middle, late = np.percentile(values, (50, 95))
        print(f"{name}: median {middle:.1f} ms, 95 % {late:.1f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
