"""Check what a built wheel of pyfau contains.

    python scripts/check_wheel.py dist/*.whl      # what `make wheel-check` runs

A wheel without its weights, its pages or its licences still installs and imports. This check finds
such a wheel before it is published.
"""

from __future__ import annotations

import re
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

MOST_BYTES = 18_000_000  # the weights of mdhr-lite are 7.3 MB of it, and identity 5.9 MB
NEEDED = (
    "pyfau/__init__.py",
    "pyfau/version.py",
    "pyfau/py.typed",
    "pyfau/weights_manifest.json",
    "pyfau/assets/covered/model.safetensors",
    "pyfau/assets/calibration/faces.json",
    "pyfau/assets/calibration/faces.webp",
    "pyfau/assets/demo/portrait.webp",
    "pyfau/assets/identity/model.safetensors",
    "pyfau/assets/face-mesh-lite/README.md",
    "pyfau/assets/face-mesh-lite/config.json",
    "pyfau/assets/face-mesh-lite/model.safetensors",
    "pyfau/assets/mdhr-lite/README.md",
    "pyfau/assets/mdhr-lite/calibration.json",
    "pyfau/assets/mdhr-lite/config.json",
    "pyfau/assets/mdhr-lite/model.safetensors",
    "pyfau/assets/mtcnn/model.safetensors",
    "pyfau/report/page/page.css",
    "pyfau/report/page/page.html",
    "pyfau/report/page/page.js",
    "pyfau/serve/page/index.html",
    "pyfau/serve/page/page.css",
    "pyfau/serve/page/page.js",
)
LICENCES = ("LICENSE", "THIRD_PARTY_NOTICES.md")
UNWANTED = re.compile(
    r"(^|/)(tests?|benchmarks|training|examples|docs|scripts)/|__pycache__|\.pyc$"
)
BASE_PACKAGES = ("torch", "numpy", "opencv-python", "pillow", "face-alignment", "huggingface-hub")


def problems(path: Path) -> list[str]:
    """What is wrong with the wheel, one sentence each; empty if nothing is."""
    found = []
    if path.stat().st_size > MOST_BYTES:
        found.append(f"the wheel has {path.stat().st_size} bytes, more than {MOST_BYTES}")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        info = next((n.partition("/")[0] for n in names if n.endswith(".dist-info/METADATA")), "")
        if not info:
            return [*found, "the wheel has no metadata"]
        metadata = message_from_bytes(wheel.read(f"{info}/METADATA"))
        source = wheel.read("pyfau/version.py").decode() if "pyfau/version.py" in names else ""
        empty = [n for n in NEEDED if n in names and n != "pyfau/py.typed" and not wheel.read(n)]
    found += [f"{name} is missing" for name in NEEDED if name not in names]
    found += [f"{name} is empty" for name in empty]
    found += [
        f"licence file {n} is missing" for n in LICENCES if f"{info}/licenses/{n}" not in names
    ]
    found += [f"{name} should not be in the wheel" for name in names if UNWANTED.search(name)]
    outside = {name.partition("/")[0] for name in names} - {"pyfau", info}
    found += [f"{name} lies outside the package" for name in sorted(outside)]
    if f'__version__ = "{metadata["Version"]}"' not in source:
        found.append(f"the metadata say version {metadata['Version']}, pyfau/version.py does not")
    requirements = "\n".join(metadata.get_all("Requires-Dist", []))
    for name in BASE_PACKAGES:
        if not re.search(rf"^{name}\b(?!.*extra ==)", requirements, flags=re.MULTILINE):
            found.append(f"the metadata do not require {name}")
    return found


def main() -> None:
    """Print what is wrong with the wheels given, and exit with 1 if anything is."""
    paths = [Path(argument) for argument in sys.argv[1:]]
    if not paths:
        raise SystemExit("usage: check_wheel.py WHEEL...")
    failed = False
    for path in paths:
        found = problems(path)
        failed = failed or bool(found)
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {len(found)} problems")
        for sentence in found:
            print(f"  {sentence}")
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
