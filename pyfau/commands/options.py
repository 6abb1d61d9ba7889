"""The options of all subcommands that score, and the detector that is made from them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from pyfau.choices import AlignerChoice, BaselineSource, Engine, Precision, WindowName
from pyfau.errors import InputError, OptionError
from pyfau.records import parse_json

if TYPE_CHECKING:
    from pyfau.detector import AUDetector
    from pyfau.limits import Limits
    from pyfau.result import AUResult

# Options that the detector takes under the same name.
_PASSED = (
    "model",
    "revision",
    "device",
    "precision",
    "engine",
    "aligner",
    "max_faces",
    "batch_size",
    "detect_every",
    "window",
    "max_gap",
)


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the detector, which are the same for every subcommand that scores.

    Options that the user does not give are not in the parsed arguments, so that the detector's own
    defaults apply. The help texts repeat them; a test compares the two.
    """
    group = parser.add_argument_group("how to score", argument_default=argparse.SUPPRESS)
    _add_model_options(group)
    _add_face_options(group)
    _add_row_options(group)
    _add_run_options(group)


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        help="name, directory, .pth file or user/repo on the Hugging Face Hub (default: mdhr-lite)",
    )
    group.add_argument("--revision", help="commit, tag or branch of a Hub repository")
    group.add_argument("--device", help="auto, cpu, cuda, cuda:N, mps (default: auto)")
    add_choice(
        group,
        "--precision",
        Precision,
        "number format of the encoder: auto, float32, bfloat16, float16 (GPU), int8 (CPU) "
        "(default: auto)",
    )
    add_choice(
        group,
        "--engine",
        Engine,
        "inference backend of the encoder: auto, torch, onnxruntime, openvino (default: auto)",
    )
    group.add_argument(
        "--batch-size", type=int, help="number of frames scored together (default: 32)"
    )


def _add_face_options(group: argparse._ArgumentGroup) -> None:
    add_choice(
        group,
        "--aligner",
        AlignerChoice,
        "aligner, which finds the faces: auto (that of the model's config), mtcnn, fan, mediapipe, "
        "aligned, mesh (default: auto)",
    )
    group.add_argument(
        "--aligner-option",
        action="append",
        default=None,
        metavar="NAME=VALUE",
        help="option of the aligner, such as min_face=24",
    )
    group.add_argument(
        "--max-faces", type=int, help="follow only the N largest faces (default: all)", metavar="N"
    )
    group.add_argument(
        "--detect-every",
        type=int,
        help="number of frames between searches for new faces (default: 30)",
    )
    group.add_argument(
        "--max-gap",
        type=int,
        help="number of frames for which a face may be missing and still keep its face_id "
        "(default: 15)",
    )


def _add_row_options(group: argparse._ArgumentGroup) -> None:
    add_choice(
        group,
        "--window",
        WindowName,
        "frames for one score: continuous (7 before and 7 after) or clips (of 16 frames, as "
        "in the paper) (default: continuous)",
    )
    group.add_argument(
        "--threshold",
        action="append",
        default=None,
        metavar="T or AU=T",
        help="lowest score that counts as active, for all AUs or for one; can be repeated "
        "(default: the threshold of the model)",
    )
    group.add_argument(
        "--no-intensity",
        action="store_true",
        default=False,
        help="leave out the intensity columns AU12_r (experimental)",
    )
    group.add_argument(
        "--reidentify",
        action="store_true",
        default=False,
        help="give a person who returns later in a recording the same face_id as before",
    )
    group.add_argument(
        "--no-measures",
        action="store_true",
        default=False,
        help="leave out the columns of head pose, size, sharpness and quality of the face",
    )
    group.add_argument(
        "--landmarks",
        action="store_true",
        default=False,
        help="add the columns of 68 landmarks, irises and eye openness of each face, and draw "
        "them in overlays",
    )


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--offline",
        action="store_true",
        default=False,
        help="use only models that are on this machine",
    )
    group.add_argument(
        "--threads",
        type=int,
        default=None,
        help="CPU threads of each job (default: chosen by torch; several jobs share the cores)",
    )
    group.add_argument("--quiet", action="store_true", default=False, help="show no progress bar")
    add_limit_option(group)


def add_limit_option(parser: argparse._ActionsContainer) -> None:
    """Add the option that raises limits, the same for every subcommand that reads files."""
    parser.add_argument(
        "--limit",
        action="append",
        default=None,
        metavar="NAME=VALUE",
        help="change a limit for the size of input files, such as image_pixels=2e8; can be "
        "repeated (default: see docs/video.md#limits)",
    )


def add_baseline_option(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the option that adjusts the scores of a table, for `with_baseline`.

    Args:
        parser: The parser of a subcommand that reads a table.
        text: What the subcommand does with the scores.
    """
    parser.add_argument(
        "--baseline",
        metavar="auto or QUANTILE",
        help=f"{text}: auto finds the frames in which each face is at rest; a number such as 0.1 "
        "uses this quantile of its scores; see docs/baseline.md",
    )


def with_baseline(result: AUResult, text: str | None) -> AUResult:
    """The result with the baseline of `add_baseline_option`; None leaves it as it is.

    Raises:
        OptionError: The text is neither a number in [0, 1] nor a `BaselineSource`.
    """
    if text is None:
        return result
    if text in get_args(BaselineSource):
        return result.baseline(text)  # type: ignore[arg-type]
    try:
        quantile = float(text)
    except ValueError:
        raise OptionError(
            f"--baseline takes {', '.join(get_args(BaselineSource))} or a number in [0, 1], "
            f"got {text!r}"
        ) from None
    return result.baseline(quantile=quantile)


def make_limits(args: argparse.Namespace) -> Limits:
    """Make the limits from the option of `add_limit_option`.

    Raises:
        OptionError: There is no such limit, or its value is not a whole number above 0.
    """
    from pyfau.limits import parse_limits

    return parse_limits(args.limit or ())


def add_choice(
    group: argparse._ActionsContainer, option: str, kind: Any, text: str, **more: Any
) -> None:
    """Add an option whose values the tab key completes.

    The detector checks the value, not argparse, so that Python and the command line have one
    message.
    """
    action = group.add_argument(option, help=text, **more)
    action.completed = get_args(kind)  # type: ignore[attr-defined]


def make_detector(args: argparse.Namespace) -> AUDetector:
    """Make the detector from the options of `add_detector_options`.

    `--threads` changes the number of threads of the whole process.

    Raises:
        PyfauError: An option has a wrong value, or the model is not available.
    """
    from pyfau.detector import AUDetector
    from pyfau.models.devices import set_threads

    set_threads(args.threads)
    return AUDetector(**detector_arguments(args))


def detector_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `AUDetector` from the options of `add_detector_options`.

    Options that are not given are left out, so that the detector's defaults apply.

    Raises:
        OptionError: A value cannot be parsed.
    """
    arguments = {name: getattr(args, name) for name in _PASSED if hasattr(args, name)}
    return arguments | {
        "aligner_options": _aligner_options(args.aligner_option),
        "threshold": _threshold(args.threshold),
        "intensity": not args.no_intensity,
        "measures": not args.no_measures,
        "landmarks": args.landmarks,
        "reidentify": args.reidentify,
        "anonymise": getattr(args, "anonymise", False),
        "baseline": getattr(args, "baseline", None),
        "progress": not args.quiet,
        "local_files_only": args.offline,
        "limits": make_limits(args),
    }


def _aligner_options(texts: Sequence[str] | None) -> dict[str, Any] | None:
    if not texts:
        return None
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"--aligner-option takes NAME=VALUE, got {text!r}")
        try:
            options[name] = parse_json(value, text)
        except InputError:
            options[name] = value  # so that text needs no quotes
    return options


def _threshold(texts: Sequence[str] | None) -> float | dict[str | int, float] | None:
    """One number for all action units, or a number for each that is named."""
    if not texts:
        return None
    try:
        if len(texts) == 1 and "=" not in texts[0]:
            return float(texts[0])
        limits: dict[str | int, float] = {}
        for text in texts:
            au, _, value = text.partition("=")
            limits[au.strip()] = float(value)
        return limits
    except ValueError:
        raise OptionError(
            f"--threshold takes a number or AU=NUMBER (AU12=0.4), got {' '.join(texts)}"
        ) from None
