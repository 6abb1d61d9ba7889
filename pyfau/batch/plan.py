"""From the arguments of a command line to jobs: the inputs, and a table for each input.

Imports of `pyfau.media` are inside the functions, because `pyfau detect --help` must not load
OpenCV.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyfau.batch.remote import is_uri, local_path, remote_name
from pyfau.errors import OptionError
from pyfau.limits import LIMITS, Limits

CAMERA = "camera:"


@dataclass(frozen=True, slots=True)
class Job:
    """One input.

    Attributes:
        source: Path, `camera:NUMBER` or a URI that fsspec opens.
        table: The file to write, with a suffix of `pyfau.result.TABLES`.
        overlay: The overlay to write, or None.
        named: Whether the user named the table. Such a table may replace that of another input.
        overlay_named: Whether the user named the overlay.
    """

    source: str
    table: Path
    overlay: Path | None = None
    named: bool = False
    overlay_named: bool = False


def plan_jobs(
    inputs: Sequence[str], output: Path, suffix: str | None, overlay: Path | None
) -> list[Job]:
    """Give every input its table and overlay.

    Args:
        inputs: The inputs that `expand` returns.
        output: A folder; or a .csv, .parquet or .jsonl file, for one input.
        suffix: Format of the tables in a folder: "csv", "parquet" or "jsonl"; None for csv.
        overlay: A folder, or a file for one input.

    Raises:
        OptionError: An overlay would replace an input, or several inputs share one file.
    """
    from pyfau.files import is_folder
    from pyfau.media.formats import is_image

    single = is_table(output)
    overlay_single = overlay is not None and overlay.suffix != "" and not is_folder(overlay)
    if overlay_single and len(inputs) != 1:
        raise OptionError(
            f"{len(inputs)} inputs need a folder as --overlay, got the file {overlay}"
        )
    files = {_file_id(source): source for source in inputs} if overlay is not None else {}
    jobs = []
    for source, name in zip(inputs, _table_names(inputs), strict=True):
        table = output if single else output / f"{name}.{suffix or 'csv'}"
        drawn = overlay
        if overlay is not None and not overlay_single:
            image = is_image(source) and not is_folder(source)
            drawn = overlay / (f"{name}.png" if image else f"{name}.mp4")
        replaced = None if drawn is None else _file_id(str(drawn))
        if replaced is not None and replaced in files:
            raise OptionError(f"{drawn} would replace the input {files[replaced]}")
        jobs.append(Job(source, table, drawn, single, overlay_single))
    return jobs


def is_table(output: Path) -> bool:
    """Whether an output is one table rather than a folder of them."""
    from pyfau.files import is_folder
    from pyfau.tables.writers import TABLES

    return output.suffix.lower() in TABLES and not is_folder(output)


def expand(inputs: Sequence[str], limits: Limits = LIMITS) -> list[str]:
    """Replace patterns, lists and folders of videos by single inputs.

    An input that does not exist stays in the list, so that it is reported as failed.

    Args:
        inputs: As the user gives them.
        limits: Larger lists are refused.

    Raises:
        OptionError: An input is empty, is not a camera, or is a list that cannot be read.
    """
    found: dict[str, str] = {}
    for text in inputs:
        for single in _expand_one(text, limits):
            # One file that is given under several names is one input.
            found.setdefault(_identity(single), single)
    return list(found.values())


def _expand_one(text: str, limits: Limits) -> list[str]:
    """The single inputs behind one argument."""
    if not text:
        raise OptionError("an input is empty text")
    if "\0" in text:
        raise OptionError(f"an input contains a NUL character: {text!r}")
    # pathlib raises for names that are too long; os.path does not.
    exists = os.path.exists(text)  # noqa: PTH110
    if _is_number(text) and not exists:
        return [f"{CAMERA}{text}"]
    if text.startswith(CAMERA):
        if not _is_number(text.removeprefix(CAMERA)):
            raise OptionError(f"a camera is given as camera:NUMBER, got {text!r}")
        return [text]
    if text.startswith("@") and not exists:
        return _read_list(Path(text[1:]), limits)
    if is_uri(text):
        return [local_path(text)]
    if exists:
        return _expand_path(text)
    return _expand_glob(text)


def _expand_glob(pattern: str) -> list[str]:
    """The inputs that match a pattern; without a match, the pattern itself."""
    from pyfau.files import natural_key

    # pathlib does not support absolute patterns.
    matches = sorted(glob.glob(pattern, recursive=True), key=natural_key)  # noqa: PTH207
    if not matches:
        return [pattern]
    return [single for match in matches for single in _expand_path(match)]


def _expand_path(text: str) -> list[str]:
    """The videos of a folder with videos; otherwise the file or folder itself.

    A folder that has images as well is also an input itself: a sequence of images.
    """
    from pyfau.files import is_folder, natural_key
    from pyfau.media.formats import is_image, is_video

    if not is_folder(text):
        return [text]
    try:
        entries = list(Path(text).iterdir())
    except OSError:
        return [text]  # reported when it is scored
    files = [entry for entry in entries if not entry.name.startswith(".")]
    files.sort(key=lambda file: natural_key(file.name))
    videos = [str(file) for file in files if file.is_file() and is_video(file)]
    if not videos or any(is_image(file) for file in files):
        return [text, *videos]
    return videos


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _identity(text: str) -> str:
    """The same text for all names of one input."""
    if text.startswith(CAMERA) or is_uri(text):
        return text
    return os.path.realpath(text)


def _table_names(inputs: Sequence[str]) -> list[str]:
    """A file name without suffix for each input, all different."""
    names: list[str] = []
    taken: set[str] = set()  # case-folded: some file systems ignore case
    counts: dict[str, int] = {}  # the next number of each name, so that none is tried twice
    for text in inputs:
        name = _table_name(text)
        if name.casefold() in taken and not text.startswith(CAMERA):
            name = Path(text).name.replace(".", "_")  # clip.mp4 next to clip.avi
        unique, count = name, counts.get(name.casefold(), 2)
        while unique.casefold() in taken:
            unique = f"{name}-{count}"
            count += 1
        counts[name.casefold()] = count
        names.append(unique)
        taken.add(unique.casefold())
    return names


def _table_name(text: str) -> str:
    """The name of the table of an input, if no other input has the same name."""
    from pyfau.files import is_folder, real_path

    if text.startswith(CAMERA):
        return text.replace(":", "")
    if is_uri(text):
        # The hash makes the name independent of the other inputs of the run.
        digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:12]
        return f"{Path(remote_name(text)).stem or 'input'}-{digest}"
    path = Path(text)
    name = real_path(path).name if is_folder(path) else path.stem
    return name or "input"


def _file_id(path: str) -> tuple[int, int] | None:
    """A value that is the same for all names of one file; None if there is no such file."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _read_list(path: Path, limits: Limits) -> list[str]:
    """The inputs in a text file, one on each line.

    Empty lines and lines that begin with # are left out.
    """
    from pyfau.files import read_text, reason_of

    try:
        lines = read_text(path, limits.metadata_bytes).splitlines()
    except (OSError, ValueError) as error:
        raise OptionError(
            f"@{path}: expected a text file with an input on each line: {reason_of(error)}"
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if "\0" in text:
            raise OptionError(f"@{path}: line {number} contains a NUL character")
        found.append(local_path(text) if is_uri(text) else text)
    return found
