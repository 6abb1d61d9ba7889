"""The lists of BP4D and DISFA, laid out as in CVI-SZU/MDHR and ME-GraphAU, and their clips."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np
import numpy.typing as npt

from pyfau.aus import au_name
from pyfau.checks import check_choice
from pyfau.choices import DataSet
from pyfau.errors import InputError, OptionError
from pyfau.files import is_folder, read_text
from pyfau.media.formats import IMAGE_SUFFIXES
from pyfau.models.paper import DATA_SETS
from pyfau.models.windows import CLIP_LENGTH

FOLDS = (1, 2, 3)
IGNORED = -1  # a label that does not count; BP4D's own files write 9 for an unknown one
_LABELS = {0.0: 0, 1.0: 1, -1.0: IGNORED, 9.0: IGNORED}
_LABEL_TEXT = {"0": 0, "1": 1, "-1": IGNORED, "9": IGNORED}
_EXAMPLES = {"bp4d": "F001/T1/2440.jpg", "disfa": "SN002/SN002_0.png"}
_LARGEST_LIST = 200_000_000  # bytes; the largest official list has 2 MB


@dataclass(frozen=True, slots=True)
class FrameList:
    """The frames of one part of a fold, in the order of their list.

    Attributes:
        data: "bp4d" or "disfa".
        fold: 1, 2 or 3.
        source: The list of images.
        paths: F paths below the image folder, with forward slashes.
        videos: F names of the videos: the folders of the images, such as "F001/T1".
        numbers: (F,) int64, the numbers at the ends of the images' names.
        labels: (F, N) int8, 1 present, 0 absent, -1 ignored, in the order of `aus`.
    """

    data: str
    fold: int
    source: Path
    paths: tuple[str, ...]
    videos: tuple[str, ...]
    numbers: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def aus(self) -> tuple[str, ...]:
        """The N names of the labels, such as "AU12"."""
        return tuple(au_name(au) for au in DATA_SETS[self.data].aus)


def read_list(data: str, folder: Path, fold: int, part: str = "test") -> FrameList:
    """Read the image list and the label list of one fold.

    The names are those of the official repositories, for example `BP4D_test_img_path_fold1.txt`
    (for DISFA in MDHR `DISFA_test_path_fold1.txt`) with `BP4D_test_label_fold1.txt`. The lists can
    also be in a folder `list` in that folder.

    Args:
        data: "bp4d" or "disfa".
        folder: Where the lists are.
        fold: 1, 2 or 3.
        part: "test" or "train".

    Raises:
        InputError: A list is missing or is not text, a line is wrong (the error names file and
            line), or the two lists differ in length.
        OptionError: The data set or fold is unknown.
    """
    check_choice(data, "data set", DataSet)
    if fold not in FOLDS:
        raise OptionError(f"the folds are 1, 2 and 3, got {fold}")
    start = f"{data.upper()}_{part}"
    source = _find(folder, [f"{start}_img_path_fold{fold}.txt", f"{start}_path_fold{fold}.txt"])
    label_source = _find(folder, [f"{start}_label_fold{fold}.txt"])
    paths, numbers = _read_paths(source, _EXAMPLES[data])
    labels = _read_labels(label_source, DATA_SETS[data].aus)
    if len(paths) != len(labels):
        raise InputError(
            f"{source} has {len(paths)} images and {label_source} {len(labels)} lines of labels: "
            "expected one line per image"
        )
    videos = tuple(path.rpartition("/")[0] for path in paths)
    return FrameList(data, fold, source, tuple(paths), videos, np.array(numbers, np.int64), labels)


def cut_clips(frames: FrameList, length: int = CLIP_LENGTH) -> list[range]:
    """Cut the frames into clips as in the paper's protocol.

    A clip ends after `length` frames, where the video changes, and where the number of the next
    frame does not follow.

    Returns:
        Positions in the list. Each clip has 1 to `length` frames; together they cover every frame.
    """
    clips, start = [], 0
    for i in range(1, len(frames) + 1):
        ends = i == len(frames) or frames.videos[i] != frames.videos[i - 1]
        if ends or frames.numbers[i] != frames.numbers[i - 1] + 1 or i - start == length:
            clips.append(range(start, i))
            start = i
    return clips


def find_images(frames: FrameList, root: Path) -> Path:
    """The folder that the paths of a list start from.

    It is `root`, or `img` or `img_o` in it, as in the official code.

    Raises:
        InputError: None of the images is in any of them.
    """
    folders = [folder for folder in (root, root / "img", root / "img_o") if is_folder(folder)]
    if not folders:
        raise InputError(
            f"{root} is not a folder: expected the folder of the images in {frames.source}"
        )

    def most(paths: Sequence[str]) -> Path | None:
        counts = [sum((folder / path).is_file() for path in paths) for folder in folders]
        return folders[counts.index(max(counts))] if any(counts) else None

    found = most(frames.paths[:: max(1, len(frames) // 50)]) or most(frames.paths)
    if found is None:
        looked = " or ".join(str(folder / frames.paths[0]) for folder in folders)
        raise InputError(
            f"none of the {len(frames)} images of {frames.source} is there: looked for {looked}"
        )
    return found


def _find(folder: Path, names: list[str]) -> Path:
    if not is_folder(folder):
        raise InputError(f"{folder} is not a folder: expected one that holds {names[0]}")
    for place in (folder, folder / "list"):
        for name in names:
            if (place / name).is_file():
                return place / name
    raise InputError(f"{folder} holds no {' or '.join(names)}")


def _read_lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _LARGEST_LIST:
            raise InputError(f"{path} has {path.stat().st_size} bytes: too large for a list")
        text = io.StringIO(read_text(path, _LARGEST_LIST), newline=None)
        lines = [line.strip() for line in text]
    except UnicodeDecodeError:
        raise InputError(
            f"{path} is not UTF-8 text: expected a list with one line per frame"
        ) from None
    except OSError as error:
        raise InputError(f"{path} could not be read: {error.strerror}") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"{path} is empty: expected one line per frame")
    if "" in lines:
        raise InputError(
            f"{path}:{lines.index('') + 1}: the line is empty; expected one line per frame"
        )
    return lines


def _read_paths(path: Path, example: str) -> tuple[list[str], list[int]]:
    paths, numbers = [], []
    for line, text in enumerate(_read_lines(path), 1):
        parts = text.replace("\\", "/").split("/")
        stem, _, suffix = parts[-1].rpartition(".")
        number = re.search(r"[0-9]+$", stem)
        outside = (
            PureWindowsPath(text).drive
            or any(part in ("", ".", "..") for part in parts)
            or "\0" in text
        )
        if (
            outside
            or len(parts) < 2
            or f".{suffix.lower()}" not in IMAGE_SUFFIXES
            or number is None
        ):
            shown = text if len(text) <= 80 else f"{text[:77]}..."
            raise InputError(
                f"{path}:{line}: {shown!r} is no image of a video; expected a path below the "
                f"image folder whose name ends in a frame number, such as {example}"
            )
        paths.append("/".join(parts))
        numbers.append(int(number.group()[-15:]))
    return paths, numbers


def _read_labels(path: Path, aus: Sequence[int]) -> npt.NDArray[np.int8]:
    lines = _read_lines(path)
    labels = np.empty((len(lines), len(aus)), np.int8)
    for line, text in enumerate(lines, 1):
        fields = text.split()
        if len(fields) != len(aus):
            names = " ".join(map(str, aus))
            raise InputError(
                f"{path}:{line}: {len(fields)} labels, expected {len(aus)}: one for each of AU "
                f"{names}"
            )
        try:
            labels[line - 1] = [_LABEL_TEXT[field] for field in fields]
        except KeyError:
            labels[line - 1] = [_label(field, path, line) for field in fields]
    return labels


def _label(field: str, path: Path, line: int) -> int:
    """A label in another notation, such as numpy's 1.000000000000000000e+00."""
    try:
        return _LABELS[float(field)]
    except (ValueError, KeyError):
        raise InputError(
            f"{path}:{line}: the label {field[:40]!r}; expected 0, 1, or -1 for one that is ignored"
        ) from None
