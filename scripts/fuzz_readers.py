"""The readers of pyfau that files from strangers reach, for `fuzz.py` and for Atheris."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = ROOT / "tests" / "data" / "hostile"
_FRAMES = 50  # of a damaged clip


@dataclass(frozen=True)
class Reader:
    """A reader and how to damage its files.

    Attributes:
        read: Takes a path.
        is_text: Whether files are text.
    """

    read: Callable[[Path], Any]
    is_text: bool = True


def _read_image(path: Path) -> None:
    from pyfau.media.images import read_image

    read_image(path)


def _read_video(path: Path) -> None:
    from pyfau.media.readers import read_video

    with read_video(path, ahead=0) as reader:
        for _ in islice(reader, _FRAMES):
            pass


def _read_frame(path: Path) -> None:
    from pyfau.serve.uploads import decode_frame

    decode_frame(path.read_bytes())


def _read_clip(path: Path) -> None:
    from pyfau.serve.uploads import is_container, open_clip

    if is_container(path.read_bytes()[:12]):
        open_clip(path, 600).close()


def _read_table(path: Path) -> None:
    from pyfau.result import AUResult
    from pyfau.tables.readers import read_table

    result = read_table(path, AUResult)
    result.to_dataframe()


def _read_sidecar(path: Path) -> None:
    from pyfau.result import AUResult
    from pyfau.tables.metadata import is_complete, read_metadata, sidecar
    from pyfau.tables.readers import read_table

    table = path.with_name("table.csv")
    shutil.copyfile(HOSTILE / "table" / "valid.csv", table)
    shutil.copyfile(path, sidecar(table))
    read_metadata(sidecar(table))
    is_complete(table)
    repr(read_table(table, AUResult))


def _read_elan(path: Path) -> None:
    from pyfau.formats.elan import read_elan

    read_elan(path)


def _read_openface(path: Path) -> None:
    from pyfau.formats.openface import read_openface

    read_openface(path)


def _read_pyfeat(path: Path) -> None:
    from pyfau.formats.pyfeat import read_pyfeat

    read_pyfeat(path)


def _read_events(path: Path) -> None:
    from pyfau.formats.events import read_events

    read_events(path)


def _read_bids(path: Path) -> None:
    from pyfau.analysis.markers import join_markers
    from pyfau.formats.bids import read_bids_events
    from pyfau.result import AUResult

    rows = AUResult.read_csv(HOSTILE / "table" / "valid.csv").to_dataframe()
    join_markers(rows, read_bids_events(path))


def _read_labels(path: Path) -> None:
    from pyfau.evaluation.labels import read_labels

    read_labels(path)


def _read_frames(path: Path) -> None:
    from pyfau.evaluation.lists import read_list

    folder = path.parent
    shutil.copyfile(path, folder / "BP4D_test_img_path_fold1.txt")
    (folder / "BP4D_test_label_fold1.txt").write_text(("0 " * 11 + "1\n") * 4)
    read_list("bp4d", folder, 1)


def _read_jobs(path: Path) -> None:
    from pyfau.batch.plan import expand

    expand([f"@{path}"])


def _read_config(path: Path) -> None:
    from pyfau.models.config import read_config

    read_config(path)


def _read_manifest(path: Path) -> None:
    from pyfau.weights.manifest import parse_manifest

    parse_manifest(path.read_text(errors="replace"))


def _read_safetensors(path: Path) -> None:
    from pyfau.weights.store import load_model

    folder = path.with_name("model")
    folder.mkdir(exist_ok=True)
    shutil.copyfile(HOSTILE / "config" / "valid.json", folder / "config.json")
    shutil.copyfile(path, folder / "model.safetensors")
    load_model(folder)


def _read_checkpoint(path: Path) -> None:
    from pyfau.weights.store import load_model

    load_model(path)


# By the folder in tests/data/hostile.
READERS = {
    "image": Reader(_read_image, is_text=False),
    "video": Reader(_read_video, is_text=False),
    "frame": Reader(_read_frame, is_text=False),
    "clip": Reader(_read_clip, is_text=False),
    "table": Reader(_read_table),
    "sidecar": Reader(_read_sidecar),
    "elan": Reader(_read_elan),
    "openface": Reader(_read_openface),
    "pyfeat": Reader(_read_pyfeat),
    "events": Reader(_read_events),
    "bids": Reader(_read_bids),
    "labels": Reader(_read_labels),
    "frames": Reader(_read_frames),
    "jobs": Reader(_read_jobs),
    "config": Reader(_read_config),
    "manifest": Reader(_read_manifest),
    "safetensors": Reader(_read_safetensors, is_text=False),
    "checkpoint": Reader(_read_checkpoint, is_text=False),
}


def files_of(name: str) -> list[Path]:
    """The files of a reader in tests/data/hostile, in a fixed order."""
    return sorted(path for path in (HOSTILE / name).iterdir() if path.is_file())
