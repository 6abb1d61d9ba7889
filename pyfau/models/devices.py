"""From a device option to a torch device that is available."""

from __future__ import annotations

import cv2
import torch

from pyfau.checks import check_threads
from pyfau.errors import DeviceError


def set_threads(threads: int | None) -> None:
    """Set the number of CPU threads of the whole process, for torch and OpenCV.

    Args:
        threads: The number; None leaves it as it is.

    Raises:
        OptionError: It is less than 1.
    """
    check_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn a device option into a device of this machine.

    Args:
        device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:1", "mps", or a
            torch.device.

    Raises:
        DeviceError: Unknown, or not available on this machine.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"unknown device {device!r}: expected auto, cpu, cuda, cuda:N, mps or a torch.device"
        ) from error
    count = torch.cuda.device_count()
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= count):
        raise DeviceError(
            f"device {str(device)!r} is not available: this torch sees {count} CUDA devices"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' is not available on this machine")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(
            f"unknown device {str(device)!r}: expected auto, cpu, cuda, cuda:N or mps"
        )
    return chosen
