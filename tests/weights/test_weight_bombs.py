"""Small model files that claim to be large: refused before they are decoded, in bounded memory."""

from __future__ import annotations

import collections
import io
import json
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from test_models import tiny_model

from pyfau.errors import WeightsError
from pyfau.weights.pickles import check_pickle
from pyfau.weights.store import load_model, save_model

ROOM = 1_500_000_000  # bytes of address space above those of the idle process
SECONDS = 10  # of CPU time; a busy machine needs twice the 5 seconds of a quiet one
BOMB = 1_700_000_000  # bytes when decoded
PROGRAM = """
import resource, sys, time
from pathlib import Path
import torch
from pyfau import WeightsError, load_model
load_model()  # what is loaded on first use
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
started = time.process_time()
try:
    load_model(sys.argv[1])
except WeightsError as error:
    print(error)
else:
    print("loaded")
print(time.process_time() - started)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc of Linux")


def refuse(path: Path) -> str:
    """The message of the refusal, made within the limits."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(ROOM)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    message, seconds = done.stdout.splitlines()
    assert message != "loaded"
    assert float(seconds) < SECONDS
    return message


def checkpoint(path: Path) -> Path:
    torch.save({"state_dict": {"module.a": torch.zeros(10)}}, path)
    return path


def inflate(path: Path, member: str) -> Path:
    """Replace a member of a zip file by one that is small only because it is compressed."""
    with zipfile.ZipFile(path) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in contents if name.endswith(member))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, compresslevel=1) as archive:
        for other, data in contents.items():
            if other != name:
                archive.writestr(other, data)
        archive.compression = zipfile.ZIP_DEFLATED
        piece = bytes(1 << 24)
        with archive.open(name, "w", force_zip64=True) as stream:
            for _ in range(BOMB // len(piece)):
                stream.write(piece)
    assert path.stat().st_size < 9_000_000
    return path


@pytest.mark.parametrize("member", ["data/0", "data.pkl"])
def test_a_compressed_checkpoint(tmp_path: Path, member: str) -> None:
    said = refuse(inflate(checkpoint(tmp_path / "a.pth"), member))
    assert f"{member}' is compressed" in said


def test_a_checkpoint_whose_members_overlap(tmp_path: Path) -> None:
    """Many entries of the directory can name the same bytes."""
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("a/data/0", bytes(1_000_000))
        twin = archive.infolist()[-1]
        archive.filelist += [twin] * 2000  # what is written as the directory
    assert path.stat().st_size < 2_000_000
    assert "members overlap" in refuse(path)


def huge_bytearray() -> bytes:
    """A pickle of some bytes that makes an object of 2 GB."""
    return b"\x80\x02cbuiltins\nbytearray\nJ" + struct.pack("<i", 2**31 - 1) + b"\x85R."


def test_a_pickle_that_makes_something_large(tmp_path: Path) -> None:
    zipped, legacy = checkpoint(tmp_path / "a.pth"), tmp_path / "b.pth"
    with zipfile.ZipFile(zipped) as archive:
        names = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, data in names.items():
            archive.writestr(name, huge_bytearray() if name.endswith("data.pkl") else data)
    torch.save({}, legacy, _use_new_zipfile_serialization=False)
    head = b"".join(
        pickle.dumps(part, protocol=2)
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    assert legacy.read_bytes().startswith(head[:20])
    legacy.write_bytes(head + huge_bytearray())
    for path in (zipped, legacy):
        assert "it calls 'builtins bytearray', which no checkpoint needs" in refuse(path)


HEAD = b"".join(
    pickle.dumps(part, protocol=2)
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)
STORAGE = b"(X\x07\x00\x00\x00storagectorch\n%s\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu%sNtQ"
NAMES = pickle.dumps(["0"], protocol=2)


def legacy(path: Path, objects: bytes, rest: bytes = NAMES) -> Path:
    """A file of before torch 1.6."""
    path.write_bytes(HEAD + objects + rest)
    return path


def whole(number: int) -> bytes:
    """The instruction that makes a number."""
    return pickle.dumps(number, protocol=2)[2:-1]


def test_a_legacy_file_whose_storages_are_larger_than_itself(tmp_path: Path) -> None:
    storage = STORAGE % (b"FloatStorage", whole(BOMB // 4))
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(%sK\x00K\x01\x85K\x01\x85\x89}tR" % storage
    path = legacy(tmp_path / "a.pth", b"\x80\x02}X\x01\x00\x00\x00a" + rebuilt + b"s.")
    size = path.stat().st_size
    assert size < 1000
    assert f"its tensors claim {BOMB // 4 * 4} bytes, and it has {size}" in refuse(path)


def test_a_text_that_claims_a_length(tmp_path: Path) -> None:
    text = b"\x80\x04\x8d" + (2**60).to_bytes(8, "little") + b"a"
    with pytest.raises(WeightsError, match="it is no PyTorch file") as caught:
        check_pickle(legacy(tmp_path / "a.pth", text))
    assert "a text of" in str(caught.value.__cause__)  # not a MemoryError


def test_a_tensor_that_is_made_from_a_number(tmp_path: Path) -> None:
    made = b"\x80\x02ctorch\nFloatTensor\n%s\x85R." % whole(BOMB // 4)
    said = refuse(legacy(tmp_path / "a.pth", made))
    assert "it calls 'torch FloatTensor', which no checkpoint needs" in said


@pytest.mark.parametrize(
    "name",
    [
        "torch Tensor",
        "torch.sparse FloatTensor",
        "torch._utils _rebuild_qtensor",
        "torch._utils _rebuild_wrapper_subclass",
        "torch._utils _rebuild_device_tensor_from_numpy",
        "_codecs encode",
        "builtins bytearray",
        "__builtin__ bytearray",
    ],
)
def test_functions_that_no_checkpoint_needs(tmp_path: Path, name: str) -> None:
    call = b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n)R."
    for rest in (NAMES, b"", b"\xff" * 20):  # also before a damage
        path = legacy(tmp_path / "a.pth", call, rest)
        with pytest.raises(WeightsError, match=f"it calls '{name}', which no checkpoint needs"):
            check_pickle(path)


@pytest.mark.parametrize(
    "objects",
    [
        b"\x80\x02" + STORAGE % (b"FloatStorage", whole(-1)) + b".",
        b"\x80\x02" + STORAGE % (b"FloatStorage", b"N") + b".",
        b"\x80\x02K\x01Q.",
        b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\0" * 30,  # a number of 2 GB
        b"\x80\x02K\x01r\xff\xff\xff\x7f0.",  # a memory of 2**31 objects
        b"\x80\x02]" + b"(" * 100_000 + b"t" * 100_000 + b"a.",
        b"",
    ],
    ids=["negative", "none", "identity", "number", "memory", "deep", "empty"],
)
def test_damaged_legacy_files(tmp_path: Path, objects: bytes) -> None:
    path = legacy(tmp_path / "a.pth", objects, NAMES if objects else b"")
    with pytest.raises(WeightsError, match=r"is refused|is not a checkpoint"):
        load_model(path)


def test_tar_archives_are_refused(tmp_path: Path) -> None:
    """PyTorch still unpacks those of its first versions; a sparse file in one fills the disk."""
    path = tmp_path / "a.pth"
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps({}, protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(WeightsError, match="it is no PyTorch file"):
        check_pickle(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_legacy_files_of_torch_pass(tmp_path: Path, dtype: torch.dtype) -> None:
    shared = torch.arange(1000).to(dtype)
    state = {
        "a": shared,
        "b": shared[10:20],
        "c": torch.nn.Parameter(torch.ones(3, 4)),
        "d": torch.tensor(1).to(dtype),
    }
    content = {"epoch": 3, "state_dict": collections.OrderedDict(state), "optimizer": {"lr": 0.1}}
    for legacy_format in (True, False):
        path = tmp_path / "a.pth"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy_format)
        check_pickle(path)


def test_a_header_of_many_tensors(tmp_path: Path) -> None:
    save_model(tiny_model(5), tmp_path)
    names = {
        f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(150_000)
    }
    header = json.dumps(names).encode()
    assert len(header) < 10_000_000
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert "missing tensors" in refuse(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["[" * 999_999, '{"a":' * 190_000, "9" * 999_999, '{"aus": [' + "1," * 490_000 + "1]}"],
    ids=["lists", "objects", "digits", "numbers"],
)
def test_configurations_of_a_megabyte(tmp_path: Path, text: str) -> None:
    save_model(tiny_model(5), tmp_path)
    (tmp_path / "config.json").write_text(text)
    said = refuse(tmp_path)
    assert "config.json" in said
    assert len(said) < 2000


def test_the_limit_of_these_tests_holds() -> None:
    """Without it, they could not fail."""
    program = PROGRAM.replace("load_model(sys.argv[1])", f"bytearray({BOMB})")
    done: Any = subprocess.run(
        [sys.executable, "-c", program, "-", str(ROOM)], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "MemoryError" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
