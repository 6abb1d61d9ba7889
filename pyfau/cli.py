"""The command line: `pyfau detect`, `demo`, `models`, `info`; other subcommands are in `pyfau.commands`."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau import __version__
from pyfau.commands import convert, download, evaluate, export, live, publish, report, serve, table, verify
from pyfau.commands.info import show_model
from pyfau.commands.options import add_detector_options, make_detector
from pyfau.errors import OptionError, PyfauError

if TYPE_CHECKING:
    from tqdm import tqdm


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
        kept = "; the rows written so far are kept" if args.run in (_detect, _demo) else ""
        print(f"pyfau: interrupted{kept}", file=sys.stderr)
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
    detect.add_argument(
        "inputs", nargs="+", metavar="INPUT",
        help="video, picture, folder, glob pattern, camera, URI for fsspec, or @LIST: a text file of them, one a line",
    )  # fmt: skip
    detect.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT",
        help="a .csv, .parquet or .jsonl file for one input, otherwise a folder",
    )  # fmt: skip
    detect.add_argument(
        "--format", choices=("csv", "parquet", "jsonl"), help="of the tables in a folder (default: csv)"
    )
    detect.add_argument(
        "--overlay",
        type=Path,
        metavar="FILE",
        help="also write overlays: a .mp4 or .webm, a .png for one picture, or a folder",
    )
    detect.add_argument(
        "--jobs", type=int, metavar="N", help="score so many inputs at once, in processes of their own (default: 1)"
    )
    detect.add_argument("--resume", action="store_true", help="skip inputs whose table is complete")
    detect.add_argument("--fps", type=float, help="frames per second of picture sequences")
    detect.add_argument("--seconds", type=float, help="stop a camera after this time")
    detect.add_argument("--independent", action="store_true", help="pictures are not a sequence: score each on its own")
    add_detector_options(detect)
    many = detect.add_argument_group("more than one machine")
    many.add_argument(
        "--runner", choices=("local", "ray"), default="local",
        help="who runs the jobs: this machine, or a Ray cluster, which writes Parquet (default: local)",
    )  # fmt: skip
    many.add_argument(
        "--ray-address", metavar="ADDRESS", help="of the cluster (default: as Ray finds it, or a new one)"
    )
    many.add_argument(
        "--gpu-share", type=float, metavar="GPUS", help="GPUs of each job (default: 1 with --device cuda)"
    )
    detect.set_defaults(run=_detect)

    demo = commands.add_parser("demo", help="make a short clip, score it, and write CSV and overlay (offline)")
    demo.add_argument("-o", "--output", type=Path, default=Path("pyfau-demo"), help="folder (default: pyfau-demo)")
    add_detector_options(demo)
    demo.set_defaults(run=_demo)

    models = commands.add_parser("models", help="list the models known by name")
    models.add_argument("--json", action="store_true", help="the whole manifest as JSON")
    models.set_defaults(run=_models)

    info = commands.add_parser("info", help="versions, devices and cache folders; or all about one model")
    info.add_argument("name", nargs="?", metavar="NAME", help="a name of `pyfau models`, a directory or user/repo")
    info.set_defaults(run=_info)

    for command in (convert, publish, download, verify, evaluate, export, serve, report, table, live):
        command.add_parser(commands)
    return parser


def _detect(args: argparse.Namespace) -> int:
    from pyfau.jobs import JobOptions, LocalWorkers, Report, expand, plan_jobs, run_job, share_out

    inputs = expand(args.inputs)
    _check_usage(args, inputs)
    jobs = plan_jobs(inputs, args.output, args.format or ("parquet" if args.runner == "ray" else None), args.overlay)
    options = JobOptions(args.resume, args.fps, args.independent, args.seconds)
    count = min(args.jobs or 1, len(jobs))
    reports: Generator[Report, None, None]
    if args.runner == "ray":
        from pyfau.ray_runner import score_on_ray

        worker = _worker_options(args, 1)
        share = args.gpu_share if args.gpu_share is not None else float(args.device.startswith("cuda"))
        make = partial(make_detector, worker)
        reports = score_on_ray(
            make, jobs, options, args.output, count=args.jobs, cpus=worker.threads, gpus=share, address=args.ray_address
        )
    elif count > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        worker = _worker_options(args, max(1, cores // count))
        reports = share_out(LocalWorkers(partial(make_detector, worker), options), jobs, count)
    else:
        detector = make_detector(args)
        reports = (run_job(detector, job, options) for job in jobs)
    failures = 0
    several = count > 1 or args.runner == "ray"  # else each input has a bar of its own
    with closing(reports), _bar(len(jobs), several and not args.quiet) as bar:
        for report in reports:
            bar.clear()
            for complaint in report.complaints:
                print(complaint, file=sys.stderr)
            if report.said:
                print(report.said)
            failures += report.failures
            bar.update()
    return 1 if failures else 0


def _worker_options(args: argparse.Namespace, share: int) -> argparse.Namespace:
    """The options of one of several workers: its share of the threads, and no progress bar of its own."""
    threads = share if args.threads is None else args.threads
    return argparse.Namespace(**{**vars(args), "threads": threads, "quiet": True, "run": None})


def _bar(total: int, shown: bool) -> tqdm[Any]:
    from tqdm import tqdm

    return tqdm(total=total, unit="input", disable=not shown)


def _check_usage(args: argparse.Namespace, inputs: Sequence[str]) -> None:
    """Options that do not apply are refused rather than passed over."""
    from pyfau.jobs import CAMERA, is_table
    from pyfau.video import is_folder

    single, ray = is_table(args.output), args.runner == "ray"
    if single and len(inputs) != 1:
        raise OptionError(f"{len(inputs)} inputs need a folder as --output, got the file {args.output}")
    if (
        args.output.suffix.lower() in (".txt", ".tsv", ".json", ".xlsx", ".xls", ".feather")
        and not args.output.is_dir()
    ):
        raise OptionError(f"tables are written as .csv, .parquet or .jsonl, got --output {args.output}")
    if args.format is not None and single:
        raise OptionError(f"--format is for the tables in a folder; --output {args.output} says what it is")
    if (args.fps is not None or args.independent) and not any(is_folder(text) for text in inputs):
        raise OptionError("--fps and --independent are for folders of pictures, and no input is one")
    cameras = [text for text in inputs if text.startswith(CAMERA)]
    if args.seconds is not None and not cameras:
        raise OptionError("--seconds is for a camera, and no input is one")
    if args.jobs is not None and args.jobs < 1:
        raise OptionError(f"--jobs must be at least 1, got {args.jobs}")
    if cameras and (ray or (args.jobs or 1) > 1):
        raise OptionError(f"--jobs and --runner ray are for files; score {cameras[0]} by itself")
    if ray and (single or args.format in ("csv", "jsonl")):
        raise OptionError(f"--runner ray writes a folder of Parquet files, got --output {args.output}")
    if not ray and (args.gpu_share is not None or args.ray_address is not None):
        raise OptionError("--gpu-share and --ray-address are for --runner ray")
    if args.gpu_share is not None and not 0 <= args.gpu_share <= 64:
        raise OptionError(f"--gpu-share must be a number of GPUs, such as 1 or 0.5, got {args.gpu_share}")


def _demo(args: argparse.Namespace) -> int:
    from pyfau.aus import AU_NAMES
    from pyfau.demo import write_demo_clip

    clip = write_demo_clip(args.output / "demo.mp4")
    detector = make_detector(args)
    table, overlay = args.output / "demo.csv", args.output / "demo-overlay.mp4"
    result = detector.detect_video(clip, save=table, overlay=overlay)
    print(f"{clip}: {len(result)} rows with {detector.model.config.name} on {detector.model.device}")
    print("strongest action units, mean score (occurrence in [0, 1], not intensity):")
    for au, score in result.strongest(5):
        print(f"  {au}  {score:.2f}  {AU_NAMES.get(au, '')}")
    print(f"scores:  {table}\noverlay: {overlay}")
    for warning in result.warnings:
        print(f"pyfau: {warning}", file=sys.stderr)
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

    from pyfau.models.config import BACKBONES
    from pyfau.models.engines import resolve_engine
    from pyfau.models.inference import resolve_precision
    from pyfau.weights.store import resolve_device

    device = resolve_device("auto")
    precisions = ", ".join(f"{name} {resolve_precision('auto', device, name)}" for name in BACKBONES)

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
        "onnxruntime",
        "openvino",
    )
    rows += [(package, installed(package)) for package in packages]
    rows += [
        ("platform", platform.platform()),
        ("cpu threads", torch.get_num_threads()),
        ("cuda devices", [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or "none"),
        ("mps", torch.backends.mps.is_available()),
        ("device auto", device),
        ("precision auto", precisions.replace("torch.", "")),
        ("engine auto", resolve_engine("auto")),
        ("hub cache", HF_HUB_CACHE),
        ("torch hub (fan)", torch.hub.get_dir()),
    ]
    for name, value in rows:
        print(f"{name:16} {value}")
    return 0
