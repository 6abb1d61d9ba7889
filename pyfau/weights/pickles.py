"""Checks of official `.pth` files before they are decoded.

`torch.load(weights_only=True)` runs no code, but it allocates as much memory as a file claims to
need. A compressed member of some megabytes can become gigabytes. So can a pickle of fifty bytes
that makes a `bytearray` or a tensor of any size. PyTorch itself writes neither.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from pyfau.errors import WeightsError

MAX_PICKLE_BYTES = 2_500_000  # the largest official checkpoint has half a million; 1 MB takes 2 s
MAX_MEMBERS = 100_000  # one per tensor
_ZIP_MAGIC = b"PK\x03\x04"
# Of a file from before torch 1.6: magic number, version, system, the objects, and the names of the
# storages.
_LEGACY_PICKLES = 5
_OBJECTS = 3  # position of the objects among them
# What a checkpoint needs of the names that torch allows in a pickle. Others, such as
# `torch.FloatTensor` and `torch._utils._rebuild_qtensor`, make an object of any size from a number.
_NEEDED = re.compile(
    r"torch\._utils _rebuild_(tensor|tensor_v2|parameter|sparse_tensor)"
    r"|torch\.serialization _get_layout"  # of a sparse tensor, whose shape is refused by name
    r"|torch\.nn\.parameter Parameter"
    r"|torch (\w+Storage|Size|device|dtype|bool|bfloat16|float(16|32|64)|u?int(8|16|32|64))"
    r"|torch\.storage (\w+Storage)"
)
# Of other modules, torch allows these besides harmless names.
_REFUSED = ("builtins bytearray", "__builtin__ bytearray", "_codecs encode")
# Bytes of an element of a storage, by the start of the name of its class; others have 1.
_ELEMENT_BYTES = {
    "Double": 8,
    "Long": 8,
    "Float": 4,
    "Int": 4,
    "Half": 2,
    "BFloat16": 2,
    "Short": 2,
    "ComplexDouble": 16,
    "ComplexFloat": 8,
}


def check_pickle(path: Path) -> None:
    """Refuse a `.pth` file that would take more memory than its own size, before torch decodes it.

    A file that is damaged in another way passes: torch reports it.

    Raises:
        WeightsError: The file is refused, or is not the zip file that it claims to be.
    """
    try:
        with path.open("rb") as stream:
            is_zip = stream.read(4) == _ZIP_MAGIC  # torch decides by the same bytes
            stream.seek(0)
            problem = _archive_problem(stream) if is_zip else _legacy_problem(stream)
    except zipfile.BadZipFile as error:
        # torch has its own reader, which may accept data that Python's reader refuses.
        raise WeightsError(
            f"{path} is not a checkpoint that loads with weights_only=True: it is damaged ({error})"
        ) from error
    except Exception as error:  # damaged pickles can raise almost any exception
        if is_zip:
            return
        # torch would decode the part before the damage.
        raise WeightsError(
            f"{path} is not a checkpoint that loads with weights_only=True: it is no PyTorch file"
        ) from error
    if problem:
        raise WeightsError(f"{path} is refused: {problem}")


def _archive_problem(stream: BinaryIO) -> str:
    """Why a zip file is refused, or ""."""
    size = stream.seek(0, 2)
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            return f"it has {len(members)} members, at most {MAX_MEMBERS} are read"
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                return (
                    f"its member {member.filename[:100]!r} is compressed; PyTorch does not do that"
                )
        if sum(member.file_size for member in members) > size:
            return "its members overlap: they claim to be larger than the file"
        for member in members:
            if not member.filename.endswith("data.pkl"):
                continue
            if member.file_size > MAX_PICKLE_BYTES:
                return (
                    f"its pickle has {member.file_size} bytes, at most {MAX_PICKLE_BYTES} are read"
                )
            with archive.open(member) as pickled:
                problem = _pickle_problem(pickled)
            if problem:
                return problem
    return ""


def _legacy_problem(stream: BinaryIO) -> str:
    """Why a file of before torch 1.6, which is a row of pickles, is refused, or "".

    Raises:
        Exception: It is no such file, or it is damaged.
    """
    size = stream.seek(0, 2)
    stream.seek(0)
    for number in range(_LEGACY_PICKLES):
        start = stream.tell()
        problem = _pickle_problem(stream)
        if problem:
            return problem
        if number == _OBJECTS:
            end = stream.tell()
            stream.seek(start)
            claimed = _claimed_bytes(stream)
            stream.seek(end)
            if claimed > size:
                return f"its tensors claim {claimed} bytes, and it has {size}"
    return ""


class _Anything:
    """Stands for every class and function of a pickle, and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """See `list.append`."""

    def extend(self, items: Any) -> None:
        """See `list.extend`."""


# This is the unpickler in Python. The one in C allocates memory for every object number in a
# pickle.
_Unpickler: Any = pickle._Unpickler  # type: ignore[attr-defined, unused-ignore]


class _Claims(_Unpickler):  # type: ignore[misc]
    """Sums up the storages that a pickle names. It creates no storage and calls no function."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.bytes_of: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        """No class of the pickle is looked up."""
        return type(name, (_Anything,), {})

    def persistent_load(self, identity: Any) -> Any:
        """Note a storage: ("storage", class, name, device, number of elements, ...)."""
        _, kind, name, _, count = identity[:5]
        if type(count) is not int or count < 0:
            raise ValueError(f"a storage of {count!r} elements")
        element = _ELEMENT_BYTES.get(kind.__name__.removesuffix("Storage"), 1)
        self.bytes_of[str(name)] = max(count * element, self.bytes_of.get(str(name), 0))
        return _Anything()


def _claimed_bytes(stream: BinaryIO) -> int:
    """The bytes that the storages of a legacy pickle need, each storage once."""
    claims = _Claims(stream)
    claims.load()
    return sum(claims.bytes_of.values())


class _Bounded:
    """A stream for `pickletools` that limits reads.

    Python allocates the length that a pickle claims before it reads.
    """

    def __init__(self, stream: Any) -> None:
        self.readline = stream.readline
        self.tell = stream.tell
        self._read = stream.read

    def read(self, size: int) -> bytes:
        """Up to `size` bytes.

        Raises:
            ValueError: More than a pickle may have.
        """
        if size > MAX_PICKLE_BYTES:
            raise ValueError(f"a text of {size} bytes")
        data: bytes = self._read(size)
        return data


def _pickle_problem(stream: Any) -> str:
    """Why a pickle is refused, or "". It is not run: only its instructions are read."""
    bounded: Any = _Bounded(stream)  # genops needs no more of a stream than these methods
    for instruction, argument, position in pickletools.genops(bounded):
        if position is not None and position > MAX_PICKLE_BYTES:
            return f"its pickle is larger than {MAX_PICKLE_BYTES} bytes"
        if instruction.name == "GLOBAL" and not _is_needed(str(argument)):
            return f"it calls {argument!r:.100}, which no checkpoint needs"
    return ""


def _is_needed(name: str) -> bool:
    """Whether a checkpoint needs a name in a pickle, or torch itself decides about the name."""
    if re.match(r"torch[ .]", name):
        return _NEEDED.fullmatch(name) is not None
    return name not in _REFUSED
