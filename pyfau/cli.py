"""The command line: `pyfau detect`, `demo`, `models`, `info`; other subcommands are in `pyfau.commands`."""

from __future__ import annotations

import argparse
import glob
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau import __version__
from pyfau.commands import convert, download, evaluate, publish, verify
from pyfau.commands.info import show_model
from pyfau.errors import OptionError, PyfauError

if TYPE_CHECKING:
    from pyfau.detector import AUDetector
    from pyfau.result import AUResult

_CAMERA = "camera:"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None for those of the process.

    Returns:
        0 if all went well, 1 if an input failed or an option has no such value, 130 after Ctrl-C. A command line that
        cannot be parsed ends the process with 2.
    """
    args = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for file names that the terminal cannot show
    ended = signal.signal(signal.SIGTERM, _end) if threading.current_thread() is threading.main_thread() else None
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except PyfauError as error:
        print(f"pyfau: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pyfau: interrupted; the rows written so far are kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Nobody reads any more: what is left in the buffer must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        if ended is not None:
            signal.signal(signal.SIGTERM, ended)
    return status


def _end(number: int, frame: object) -> None:
    """Leave by an exception, so that tables and overlays are closed."""
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyfau", description="Facial action units (FACS AUs) from pictures and video."
    )
    parser.add_argument("--version", action="version", version=f"pyfau {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    detect = commands.add_parser(
        "detect",
        help="score videos, pictures, folders or a camera",
        description="Score inputs and write one table each. A folder of pictures is one sequence; a folder of videos "
        "is as many inputs. A camera is given as its number or camera:NUMBER, and ends with Ctrl-C.",
    )
    detect.add_argument("inputs", nargs="+", metavar="INPUT", help="video, picture, folder, glob pattern or camera")
    detect.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT",
        help="a .csv or .parquet file for one input, otherwise a folder",
    )  # fmt: skip
    detect.add_argument("--format", choices=("csv", "parquet"), help="of the tables in a folder (default: csv)")
    detect.add_argument(
        "--overlay",
        type=Path,
        metavar="FILE",
        help="also write overlays: a .mp4 or .webm, a .png for one picture, or a folder",
    )
    detect.add_argument("--resume", action="store_true", help="skip inputs whose table is complete")
    detect.add_argument("--fps", type=float, help="frames per second of picture sequences")
    detect.add_argument("--seconds", type=float, help="stop a camera after this time")
    detect.add_argument("--independent", action="store_true", help="pictures are not a sequence: score each on its own")
    _add_detector_options(detect)
    detect.set_defaults(run=_detect)

    demo = commands.add_parser("demo", help="make a short clip, score it, and write CSV and overlay (offline)")
    demo.add_argument("-o", "--output", type=Path, default=Path("pyfau-demo"), help="folder (default: pyfau-demo)")
    _add_detector_options(demo)
    demo.set_defaults(run=_demo)

    models = commands.add_parser("models", help="list the models known by name")
    models.add_argument("--json", action="store_true", help="the whole manifest as JSON")
    models.set_defaults(run=_models)

    info = commands.add_parser("info", help="versions, devices and cache folders; or all about one model")
    info.add_argument("name", nargs="?", metavar="NAME", help="a name of `pyfau models`, a directory or user/repo")
    info.set_defaults(run=_info)

    for command in (convert, publish, download, verify, evaluate):
        command.add_parser(commands)
    return parser


def _add_detector_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to score")
    group.add_argument(
        "--model", default="mdhr-lite", help="name, directory, .pth file or user/repo (default: mdhr-lite)"
    )
    group.add_argument("--revision", help="commit, tag or branch of a Hub repository")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps (default: auto)")
    group.add_argument("--aligner", default="mtcnn", help="mtcnn, fan, mediapipe, aligned (default: mtcnn)")
    group.add_argument(
        "--threshold", action="append", metavar="T or AU=T",
        help="score that counts as active, for all AUs or one; may be repeated (default: the model's own)",
    )  # fmt: skip
    group.add_argument("--max-faces", type=int, help="follow at most so many faces, the largest first")
    group.add_argument("--batch-size", type=int, default=32, help="frames scored together (default: 32)")
    group.add_argument(
        "--detect-every", type=int, default=30, help="frames between searches for new faces (default: 30)"
    )
    group.add_argument("--window", default="continuous", help="continuous or clips (default: continuous)")
    group.add_argument("--max-gap", type=int, default=15, help="frames a face may be missing (default: 15)")
    group.add_argument(
        "--aligner-option", action="append", metavar="NAME=VALUE", help="option of the aligner, such as min_face=24"
    )
    group.add_argument("--offline", action="store_true", help="do not ask the Hub; use what its cache holds")
    group.add_argument("--threads", type=int, help="CPU threads (default: what torch chooses)")
    group.add_argument("--quiet", action="store_true", help="no progress bar")


def _make_detector(args: argparse.Namespace) -> AUDetector:
    from pyfau.detector import AUDetector

    if args.threads is not None:
        if args.threads < 1:
            raise OptionError(f"--threads must be at least 1, got {args.threads}")
        import cv2
        import torch

        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    return AUDetector(
        args.model,
        revision=args.revision,
        device=args.device,
        aligner=args.aligner,
        aligner_options=_aligner_options(args.aligner_option),
        threshold=_threshold(args.threshold),
        max_faces=args.max_faces,
        batch_size=args.batch_size,
        detect_every=args.detect_every,
        window=args.window,
        max_gap=args.max_gap,
        progress=not args.quiet,
        local_files_only=args.offline,
    )


def _aligner_options(texts: list[str] | None) -> dict[str, Any] | None:
    options: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"--aligner-option takes NAME=VALUE, got {text!r}")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value  # text need not be quoted
    return options or None


def _threshold(texts: list[str] | None) -> float | dict[str | int, float] | None:
    if not texts:
        return None
    try:
        if len(texts) == 1 and "=" not in texts[0]:
            return float(texts[0])
        return {au.strip(): float(value) for au, _, value in (text.partition("=") for text in texts)}
    except ValueError:
        raise OptionError(f"--threshold takes a number or AU=NUMBER (AU12=0.4), got {' '.join(texts)}") from None


def _detect(args: argparse.Namespace) -> int:
    from pyfau.overlay import check_is_other
    from pyfau.result import is_complete, read_metadata
    from pyfau.video import file_record, is_folder, is_picture

    inputs = _expand(args.inputs)
    single = args.output.suffix.lower() in (".csv", ".parquet") and not is_folder(args.output)
    _check_usage(args, inputs, single)
    overlay_single = args.overlay is not None and args.overlay.suffix != "" and not is_folder(args.overlay)
    if overlay_single and len(inputs) != 1:
        raise OptionError(f"{len(inputs)} inputs need a folder as --overlay, got the file {args.overlay}")
    names = _table_names(inputs)
    jobs = []
    for source, name in zip(inputs, names, strict=True):
        table = args.output if single else args.output / f"{name}.{args.format or 'csv'}"
        overlay = args.overlay
        if overlay is not None and not overlay_single:
            overlay = overlay / f"{name}{'.png' if is_picture(source) and not is_folder(source) else '.mp4'}"
        for other in inputs if overlay is not None else ():
            check_is_other(overlay, other)
        jobs.append((source, table, overlay))
    detector = _make_detector(args)
    failed = 0
    for source, table, overlay in jobs:
        recorded = read_metadata(table)
        here = file_record(source)
        if args.resume:
            expected = detector.settings() | {"input": here}
            if overlay is not None:
                expected["overlay"] = file_record(overlay)
            if is_folder(source):
                expected |= {"fps": args.fps, "independent": args.independent}
            if is_complete(table, expected):
                print(f"{source}: done already, {table}")
                continue
        other = (recorded.get("input") or {}).get("path", here["path"])
        if not single and other != here["path"]:
            failed += 1
            print(f"pyfau: {source}: {table} is the table of {other}; give another --output", file=sys.stderr)
            continue
        if overlay is not None and not overlay_single and overlay.exists():
            claimed = (recorded.get("overlay") or {}).get("path")
            if claimed != file_record(overlay)["path"]:
                failed += 1
                print(f"pyfau: {source}: {overlay} is there and not the overlay of {table}", file=sys.stderr)
                continue
        try:
            result = _detect_one(detector, source, table, overlay, args)
        except PyfauError as error:
            failed += 1
            kept = len(error.partial_result) if error.partial_result is not None else 0
            note = f" ({kept} rows before it are kept in {table})" if kept else ""
            named = "" if source in str(error) else f"{source}: "
            print(f"pyfau: {named}{error}{note}", file=sys.stderr)
            continue
        for failure in result.failures:
            failed += 1
            print(f"pyfau: {failure.source}: {failure.error}", file=sys.stderr)
        for warning in result.warnings:
            print(f"pyfau: {source}: {warning}", file=sys.stderr)
        faces = len({i for i in result.face_ids if i is not None})
        print(f"{source}: {len(result)} rows, {faces} {'face' if faces == 1 else 'faces'}, {table}")
    return 1 if failed else 0


def _check_usage(args: argparse.Namespace, inputs: Sequence[str], single: bool) -> None:
    """Options that do not apply are refused rather than passed over."""
    from pyfau.video import is_folder

    if single and len(inputs) != 1:
        raise OptionError(f"{len(inputs)} inputs need a folder as --output, got the file {args.output}")
    if (
        args.output.suffix.lower() in (".txt", ".tsv", ".json", ".xlsx", ".xls", ".feather")
        and not args.output.is_dir()
    ):
        raise OptionError(f"tables are written as .csv or .parquet, got --output {args.output}")
    if args.format is not None and single:
        raise OptionError(f"--format is for the tables in a folder; --output {args.output} says what it is")
    if (args.fps is not None or args.independent) and not any(is_folder(text) for text in inputs):
        raise OptionError("--fps and --independent are for folders of pictures, and no input is one")
    if args.seconds is not None and not any(text.startswith(_CAMERA) for text in inputs):
        raise OptionError("--seconds is for a camera, and no input is one")


def _detect_one(
    detector: AUDetector, source: str, table: Path, overlay: Path | None, args: argparse.Namespace
) -> AUResult:
    from pyfau.video import is_folder, is_picture

    path = Path(source)
    if source.startswith(_CAMERA):
        index = int(source.removeprefix(_CAMERA))
        return detector.detect_camera(index, seconds=args.seconds, save=table, overlay=overlay)
    if is_folder(path):
        return detector.detect_images(path, fps=args.fps, independent=args.independent, save=table, overlay=overlay)
    if is_picture(path):
        return detector.detect_image(path, save=table, overlay=overlay)
    return detector.detect_video(path, save=table, overlay=overlay)


def _expand(inputs: Sequence[str]) -> list[str]:
    """Globs and folders of videos to single inputs. What does not exist stays, to be reported as failed."""
    from pyfau.video import is_folder, is_picture, is_video, natural_key

    found: list[str] = []
    for text in inputs:
        if not text:
            raise OptionError("an input is empty text")
        if text.isascii() and text.isdigit() and not Path(text).exists():
            found.append(f"{_CAMERA}{text}")
            continue
        if text.startswith(_CAMERA):
            number = text.removeprefix(_CAMERA)
            if not (number.isascii() and number.isdigit()):
                raise OptionError(f"a camera is given as camera:NUMBER, got {text!r}")
            found.append(text)
            continue
        # Not pathlib, which knows no absolute patterns and raises for names that are too long.
        globbed = [] if os.path.exists(text) else glob.glob(text, recursive=True)  # noqa: PTH110, PTH207
        matches = sorted(globbed, key=natural_key)
        for match in matches or [text]:
            path = Path(match)
            if not is_folder(path):
                found.append(match)
                continue
            files = sorted((p for p in path.iterdir() if not p.name.startswith(".")), key=lambda p: natural_key(p.name))
            videos = [str(p) for p in files if p.is_file() and is_video(p)]
            if not videos or any(is_picture(p) for p in files):
                found.append(match)
            found += videos
    unique: dict[str, str] = {}
    for text in found:  # one file that is named in several ways is one input
        unique.setdefault(text if text.startswith(_CAMERA) else os.path.realpath(text), text)
    return list(unique.values())


def _table_names(inputs: Sequence[str]) -> list[str]:
    """A file name without suffix for each input, all different."""
    from pyfau.video import is_folder

    names: list[str] = []
    taken: set[str] = set()  # without case, which some file systems do not know
    for text in inputs:
        path = Path(text)
        if text.startswith(_CAMERA):
            name = text.replace(":", "")
        else:
            name = (path.resolve().name if is_folder(path) else path.stem) or "input"
        if name.casefold() in taken and not text.startswith(_CAMERA):
            name = path.name.replace(".", "_")  # clip.mp4 beside clip.avi
        unique, count = name, 2
        while unique.casefold() in taken:
            unique, count = f"{name}-{count}", count + 1
        names.append(unique)
        taken.add(unique.casefold())
    return names


def _demo(args: argparse.Namespace) -> int:
    from pyfau.aus import AU_NAMES
    from pyfau.demo import write_demo_clip

    clip = write_demo_clip(args.output / "demo.mp4")
    detector = _make_detector(args)
    table, overlay = args.output / "demo.csv", args.output / "demo-overlay.mp4"
    result = detector.detect_video(clip, save=table, overlay=overlay)
    print(f"{clip}: {len(result)} rows with {detector.model.config.name} on {detector.model.device}")
    print("strongest action units, mean score (occurrence in [0, 1], not intensity):")
    for au, score in result.strongest(5):
        print(f"  {au}  {score:.2f}  {AU_NAMES.get(au, '')}")
    print(f"scores:  {table}\noverlay: {overlay}")
    return 0


def _models(args: argparse.Namespace) -> int:
    from pyfau.weights.manifest import read_manifest

    entries = read_manifest()
    if args.json:
        print(json.dumps({name: dict(entry.record) for name, entry in entries.items()}, indent=2))
        return 0
    width = max(map(len, entries))
    for name, entry in entries.items():
        print(f"{name:{width}}  {entry.status:8} {entry.description}")
    print("\nbundled: works offline. hub: downloaded when first used. convert: `pyfau info NAME` says how to make it.")
    return 0


def _info(args: argparse.Namespace) -> int:
    if args.name is not None:
        return show_model(args.name)
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from pyfau.weights.store import resolve_device

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    rows: list[tuple[str, Any]] = [("pyfau", __version__), ("python", platform.python_version())]
    packages = (
        "torch",
        "numpy",
        "opencv-python",
        "face-alignment",
        "huggingface-hub",
        "pillow",
        "pyarrow",
        "mediapipe",
    )
    rows += [(package, installed(package)) for package in packages]
    rows += [
        ("platform", platform.platform()),
        ("cpu threads", torch.get_num_threads()),
        ("cuda devices", [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or "none"),
        ("mps", torch.backends.mps.is_available()),
        ("device auto", resolve_device("auto")),
        ("hub cache", HF_HUB_CACHE),
        ("torch hub (fan)", torch.hub.get_dir()),
    ]
    for name, value in rows:
        print(f"{name:16} {value}")
    return 0
