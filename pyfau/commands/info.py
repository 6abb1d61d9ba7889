"""`pyfau info`: versions, devices and cache folders. `pyfau info NAME`: the facts of one model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from pyfau.errors import WeightsError
from pyfau.messages import show
from pyfau.version import __version__

_PACKAGES = (
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


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parsers of the command line."""
    parser = commands.add_parser(
        "info",
        help="print versions, devices and cache folders, or describe one model",
        description="Without NAME: print versions, devices and cache folders, for bug reports. "
        "With NAME: describe the model and say whether it is on this machine.",
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="a name of `pyfau models`, a directory or user/repo",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0.
    """
    if args.name is None:
        return _show_machine()
    return _show_model(args.name)


def _show_machine() -> int:
    import platform

    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from pyfau.models.config import BACKBONES
    from pyfau.models.devices import resolve_device
    from pyfau.models.engines import resolve_engine
    from pyfau.models.inference import resolve_precision

    device = resolve_device("auto")
    precisions = [f"{name} {resolve_precision('auto', device, name)}" for name in BACKBONES]
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    rows: list[tuple[str, Any]] = [
        ("pyfau", __version__),
        ("python", platform.python_version()),
        *((package, _installed(package)) for package in _PACKAGES),
        ("platform", platform.platform()),
        ("cpu threads", torch.get_num_threads()),
        ("cuda devices", cuda or "none"),
        ("mps", torch.backends.mps.is_available()),
        ("device auto", device),
        ("precision auto", ", ".join(precisions).replace("torch.", "")),
        ("engine auto", resolve_engine("auto")),
        ("hub cache", HF_HUB_CACHE),
        ("torch hub (fan)", torch.hub.get_dir()),
    ]
    for name, value in rows:
        show(f"{name:16} {value}")
    return 0


def _installed(package: str) -> str:
    """The installed version of a package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _show_model(name: str) -> int:
    """Print the manifest entry, the configuration and the location of a model, without a download.

    Raises:
        WeightsError: The model is neither in the manifest nor on this machine.
    """
    from pyfau.weights.manifest import read_manifest

    entry = read_manifest().get(name)
    facts: dict[str, Any] = {}
    if entry is not None:
        facts |= {**entry.record, "aligner": entry.aligner}
    missing = None
    try:
        facts |= _facts_here(name)
    except WeightsError as error:
        if entry is None:
            raise
        missing = str(error)
    metrics = facts.pop("reported_metrics", {})
    facts["action units"] = facts.pop("outputs", None) or _unit_names(facts["aus"])
    facts.pop("aus")
    facts.pop("template", None)
    show(name)
    for field, value in facts.items():
        _print_fact(field, value)
    for metric, value in metrics.items():
        _print_fact(f"reported {metric}", value)
    if missing is not None:
        _print_fact("here", f"no: {missing}")
    return 0


def _unit_names(aus: Sequence[int]) -> str:
    from pyfau.aus import au_name, full_name

    return ", ".join(full_name(au_name(au)) for au in aus)


def _facts_here(name: str) -> dict[str, Any]:
    """Facts of a model that is on this machine.

    Raises:
        WeightsError: It is not.
    """
    from pyfau.weights.find import find_model
    from pyfau.weights.read import read_found

    with find_model(name, local_files_only=True) as found:
        _, config, _ = read_found(found)
        return {
            "name": config.name,
            "network": config.network,
            "backbone": config.backbone,
            "aus": config.aus,
            "version": config.version,
            "aligner": config.aligner,
            **_facts_of_outputs(config),
            "input size": config.input_size,
            "made of": config.source,
            "sha256": found.sha256,
            "bytes": found.weights.stat().st_size,
            "here": found.path,
        }


def _facts_of_outputs(config: Any) -> dict[str, Any]:
    """What a network states about its outputs, its crop and its licence."""
    from pyfau.aus import full_name
    from pyfau.models.frame_config import FrameConfig
    from pyfau.weights.frame_card import describe_crop

    if not isinstance(config, FrameConfig):
        return {"thresholds": config.thresholds}
    outputs = [
        full_name(output.name) + (" (intensity)" if output.kind == "intensity" else "")
        for output in config.outputs
    ]
    licence = config.licence
    return {
        "variant": config.variant,
        "context": "single frames",
        "outputs": ", ".join(outputs),
        "thresholds": config.thresholds,
        "crop": describe_crop(config.crop),
        "code licence": licence.code,
        "weights licence": licence.weights,
        "commercial use": "yes" if licence.commercial else "no",
    }


def _print_fact(field: str, value: Any) -> None:
    if isinstance(value, tuple):
        value = " ".join(f"{number:g}" for number in value)
    elif isinstance(value, dict):
        value = ", ".join(f"{key} {number:g}" for key, number in value.items())
    show(f"  {field.replace('_', ' '):16} {value}")
