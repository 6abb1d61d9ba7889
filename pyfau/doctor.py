"""What works on this machine, what is missing, and how to get it; see `pyfau doctor`."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

# Packages are imported inside the checks: the report must come although one of them is broken.
from pyfau.cores import usable_cores
from pyfau.errors import PyfauError
from pyfau.version import __version__

State = Literal["ok", "missing", "problem"]

# Package -> its module.
_CORE = {
    "torch": "torch",
    "numpy": "numpy",
    "av": "av",
    "pillow": "PIL.Image",
    "scipy": "scipy.optimize",
    "pandas": "pandas",
    "face-alignment": "face_alignment",
    "huggingface-hub": "huggingface_hub",
    "safetensors": "safetensors.torch",
}
# Distributions that all install the module cv2; two of them overwrite each other's files.
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
# Extra -> the package that shows that it is installed, and what it is for.
_EXTRAS = {
    "parquet": ("pyarrow", "Parquet tables"),
    "report": ("plotly", "pyfau report"),
    "plot": ("matplotlib", "plots"),
    "evaluate": ("scikit-learn", "pyfau evaluate, pyfau.sklearn"),
    "serve": ("starlette", "pyfau serve"),
    "heic": ("pillow-heif", "HEIC images"),
    "lsl": ("pylsl", "pyfau live --lsl"),
    "mediapipe": ("mediapipe", "the mediapipe aligner"),
    "onnxruntime": ("onnxruntime", "the engine onnxruntime"),
    "openvino": ("openvino", "the engine openvino"),
    "ray": ("ray", "clusters"),
}
_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "prores", "aac", "opus")
_ENCODERS = ("libx264", "libvpx-vp9", "aac", "libopus")
_SPEED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: Such as "versions".
        name: Such as "torch".
        state: "ok"; "missing" for something optional; or "problem".
        value: What was found.
        advice: What to do if the state is not "ok"; empty otherwise.
    """

    group: str
    name: str
    state: State
    value: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """The check as a dict that JSON can express."""
        return asdict(self)


def examine(*, speed: bool = True) -> list[Check]:
    """Look at this machine. Nothing is downloaded, and only the cache folder is written to.

    Args:
        speed: Whether to score the clip of the demo for one second.

    Returns:
        The checks, by group. A check that fails with an error counts as a problem, and the others
        continue.
    """
    groups: list[Callable[[], Iterator[Check]]] = [
        _versions,
        _opencv,
        _codecs,
        _devices,
        _model,
        _extras,
    ]
    if speed:
        groups.append(_speed)
    found: list[Check] = []
    for group in groups:
        try:
            found += group()
        except Exception as error:  # the report must come, whatever is broken
            name = group.__name__.strip("_")
            found.append(Check(name, name, "problem", f"{type(error).__name__}: {error}"))
    return found


def installed(package: str) -> str | None:
    """The installed version of a package; None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> Iterator[Check]:
    yield Check("versions", "pyfau", "ok", __version__)
    yield Check("versions", "python", "ok", platform.python_version())
    yield Check("versions", "platform", "ok", platform.platform())
    for package, module in _CORE.items():
        yield _core_package(package, module)


def _core_package(package: str, module: str) -> Check:
    found = installed(package)
    if found is None:
        return Check("versions", package, "problem", "not installed", f"pip install {package}")
    error = _import_error(module)
    if error is None:
        return Check("versions", package, "ok", found)
    advice = f"pip install --force-reinstall {package}=={found}"
    return Check("versions", package, "problem", f"{found} cannot be imported: {error}", advice)


def _import_error(module: str) -> str | None:
    """Why a module cannot be imported, in one line; None if it can."""
    try:
        with redirect_stdout(sys.stderr):  # OpenCV prints to it where numpy is missing
            import_module(module)
    except Exception as error:  # broken packages raise errors of every kind
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def _opencv() -> Iterator[Check]:
    here = [package for package in _OPENCV if installed(package)]
    named = ", ".join(f"{package} {installed(package)}" for package in here)
    if len(here) > 1:
        remove = f"pip uninstall -y {' '.join(here)}, then install one of them"
        yield Check("opencv", "package", "problem", f"{named}: they share their files", remove)
    else:
        yield Check("opencv", "package", "ok", named or "not from pip")
    error = _import_error("cv2")
    if error is not None:
        advice = "if a library of the desktop is missing (libGL.so.1), replace opencv-python by "
        advice += f"opencv-python-headless; otherwise pip install --force-reinstall {_one(here)}"
        yield Check("opencv", "import", "problem", error, advice)
        return
    import cv2

    yield Check("opencv", "import", "ok", f"cv2 {cv2.__version__}")
    windows = _has_windows(cv2.getBuildInformation())
    advice = "" if windows else "pyfau live needs opencv-python instead of its headless version"
    yield Check("opencv", "windows", "ok" if windows else "missing", str(windows).lower(), advice)


def _one(packages: list[str]) -> str:
    return packages[0] if packages else "opencv-python"


def _has_windows(build: str) -> bool:
    """Whether OpenCV was built with windows, by its description of the build."""
    gui = [line for line in build.splitlines() if line.strip().startswith("GUI:")]
    return not gui or gui[0].split(":", 1)[1].strip() not in ("", "NONE")


def _codecs() -> Iterator[Check]:
    for kind, mode, names in (("decoder", "r", _DECODERS), ("encoder", "w", _ENCODERS)):
        for name in names:
            there = _has_codec(name, mode)
            advice = "" if there else "install PyAV from PyPI: pip install --force-reinstall av"
            state: State = "ok" if there else "problem"
            yield Check("codecs", f"{kind} {name}", state, "yes" if there else "no", advice)


def _has_codec(name: str, mode: Any) -> bool:
    import av

    try:
        av.codec.Codec(name, mode)
    except ValueError:  # av.codec.codec.UnknownCodecError is one
        return False
    return True


def _devices() -> Iterator[Check]:
    import torch

    from pyfau.models.devices import resolve_device
    from pyfau.models.engines import resolve_engine

    cores = usable_cores()
    threads = torch.get_num_threads()
    yield Check("device", "cores", "ok", str(cores))
    too_many = threads > cores
    advice = f"set OMP_NUM_THREADS={cores}, or use --threads {cores}" if too_many else ""
    yield Check("device", "threads", "problem" if too_many else "ok", str(threads), advice)
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Check("device", "cuda", "ok" if cuda else "missing", ", ".join(cuda) or "none")
    yield Check("device", "device auto", "ok", str(resolve_device("auto")))
    yield Check("device", "engine auto", "ok", resolve_engine("auto"))


def _model() -> Iterator[Check]:
    from pyfau.files import cache_folder
    from pyfau.weights.find import CONFIG_FILE, find_model
    from pyfau.weights.networks import read_network

    try:
        with find_model("mdhr-lite", local_files_only=True) as found:
            yield Check("model", "mdhr-lite", "ok", f"sha256 {str(found.sha256)[:12]}")
            _, config = read_network(found.path / CONFIG_FILE)
            yield Check("model", "aligner auto", "ok", config.aligner)
    except PyfauError as error:
        yield Check("model", "mdhr-lite", "problem", str(error), "install pyfau again")
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    advice = "" if writable else "set PYFAU_CACHE to a folder that you can write to"
    yield Check("model", "cache", "ok" if writable else "problem", str(folder), advice)


def _extras() -> Iterator[Check]:
    for extra, (package, purpose) in _EXTRAS.items():
        found = installed(package)
        if found is None:
            advice = f"for {purpose}: pip install 'pyfau[{extra}]'"
            yield Check("extras", extra, "missing", f"{package} is not installed", advice)
        else:
            yield Check("extras", extra, "ok", f"{package} {found}")


def _speed() -> Iterator[Check]:
    """Score the clip of the demo, with one face, for one second."""
    from pyfau.demo import demo_frames
    from pyfau.detector import AUDetector

    frames = demo_frames()
    stream = AUDetector(max_faces=1).stream(fps=25, latency=0)
    for frame in frames[:3]:  # the first calls are slower
        stream.push(frame)
    start = now = time.perf_counter()
    count = faces = 0
    while now - start < _SPEED_SECONDS:
        rows = stream.push(frames[count % len(frames)])
        faces += any(row.success for row in rows)
        count += 1
        now = time.perf_counter()
    rate = count / (now - start)
    state: State = "ok" if faces == count else "problem"
    advice = "" if state == "ok" else "the face of the demo was not found: install pyfau again"
    text = f"{rate:.1f} frames per second (640 x 480, one face, frame by frame)"
    yield Check("speed", "one second", state, text, advice)
