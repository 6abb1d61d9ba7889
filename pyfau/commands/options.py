"""The options of all subcommands that score, and the detector that they ask for."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from pyfau.errors import OptionError

if TYPE_CHECKING:
    from pyfau.detector import AUDetector


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to score, the same for every subcommand that does."""
    group = parser.add_argument_group("how to score")
    group.add_argument(
        "--model", default="mdhr-lite", help="name, directory, .pth file or user/repo (default: mdhr-lite)"
    )
    group.add_argument("--revision", help="commit, tag or branch of a Hub repository")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps (default: auto)")
    group.add_argument(
        "--precision", default="auto", help="of the encoder: auto, float32, bfloat16, float16 (GPU) (default: auto)"
    )
    group.add_argument(
        "--engine", default="auto", help="of the encoder: auto, torch, onnxruntime, openvino (default: auto)"
    )
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
    group.add_argument("--threads", type=int, help="CPU threads of each job (default: what torch chooses, shared out)")
    group.add_argument("--quiet", action="store_true", help="no progress bar")


def make_detector(args: argparse.Namespace) -> AUDetector:
    """The detector that the options of `add_detector_options` ask for; `--threads` holds for the whole process.

    Raises:
        PyfauError: An option has no such value, or the model cannot be had.
    """
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
        precision=args.precision,
        engine=args.engine,
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
