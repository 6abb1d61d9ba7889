"""How long a new process needs until a detector is ready, without the import of torch.

    python benchmarks/start.py --rounds 9

Each round starts a process. The clock runs from the end of `import torch` to the end of
`AUDetector(device="cpu")`. Torch itself takes one to several seconds and is printed, too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from statistics import median

PROGRAM = """
import json, time
started = time.perf_counter()
import torch
torch.set_num_threads(1)
loaded = time.perf_counter()
from pyfau import AUDetector
imported = time.perf_counter()
AUDetector(device="cpu")
ready = time.perf_counter()
print(json.dumps({"torch": loaded - started, "import of pyfau": imported - loaded,
                  "detector": ready - imported, "ready after torch": ready - loaded}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    rounds: list[dict[str, float]] = []
    for _ in range(args.rounds + 1):
        command = [sys.executable, "-c", PROGRAM]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rounds.append(json.loads(output))
    for name in rounds[0]:
        taken = [seconds[name] for seconds in rounds[1:]]  # the first one fills the file cache
        print(f"{name:20} median {median(taken):.2f} s, {min(taken):.2f} to {max(taken):.2f}")


if __name__ == "__main__":
    main()
