"""constraints.txt and the lock fit pyproject.toml on each Python and system that pyfau supports."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
SYSTEMS = {
    "linux": {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": "x86_64",
    },
    "macos": {
        "sys_platform": "darwin",
        "platform_system": "Darwin",
        "os_name": "posix",
        "platform_machine": "arm64",
    },
    "windows": {
        "sys_platform": "win32",
        "platform_system": "Windows",
        "os_name": "nt",
        "platform_machine": "AMD64",
    },
}
# What pip and uv call the oldest system that all pinned wheels support.
UV_PLATFORMS = {"linux": "x86_64-manylinux_2_28", "macos": "macos", "windows": "windows"}
OLDEST_MACOS = "14.0"


@cache
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


def pythons() -> list[str]:
    """The versions that pyproject.toml promises, oldest first."""
    prefix = "Programming Language :: Python :: 3."
    return [c.rpartition(" ")[2] for c in project()["classifiers"] if c.startswith(prefix)]


def environment(python: str, system: str) -> dict[str, str]:
    variables = {key: str(value) for key, value in default_environment().items()}
    return (
        variables
        | SYSTEMS[system]
        | {"python_version": python, "python_full_version": f"{python}.20"}
    )


def applies(marker: Marker | None, python: str, system: str) -> bool:
    return marker is None or marker.evaluate(environment(python, system))


def direct() -> list[Requirement]:
    """What pyproject.toml names: the core, every extra and the build backend."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        build = tomllib.load(file)["build-system"]["requires"]
    named = [*project()["dependencies"], *build]
    for extra in project()["optional-dependencies"].values():
        named += extra
    return [r for r in map(Requirement, named) if r.name != "pyfau"]


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def locked(name: str) -> list[tuple[Requirement, list[str]]]:
    """Each package of a lock file with its hashes."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = []
    for entry in entries:
        requirement, *hashes = re.split(r"\s+--hash=", entry.strip())
        found.append((Requirement(requirement), hashes))
    return found


def pins(requirements: list[Requirement], python: str, system: str) -> dict[str, Version]:
    """One version for each name. Two that apply at once, or a range, fail here."""
    versions: dict[str, Version] = {}
    for requirement in requirements:
        if not applies(requirement.marker, python, system):
            continue
        name = canonicalize_name(requirement.name)
        specifiers = list(requirement.specifier)
        assert [s.operator for s in specifiers] == ["=="], f"{requirement} is not one exact version"
        assert name not in versions, f"{name} has two versions for Python {python} on {system}"
        versions[name] = Version(specifiers[0].version)
    return versions


everywhere = pytest.mark.parametrize("system", SYSTEMS)
each_python = pytest.mark.parametrize("python", pythons())


def test_promised_pythons_are_those_of_requires_python() -> None:
    assert pythons()[0] == project()["requires-python"].removeprefix(">=")
    assert len(pythons()) >= 4


@everywhere
@each_python
def test_constraints_pin_every_named_package_once(python: str, system: str) -> None:
    pinned = pins(constraints(), python, system)
    for requirement in direct():
        if not applies(requirement.marker, python, system):
            continue
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"constraints.txt lacks {name} for Python {python} on {system}"
        assert requirement.specifier.contains(pinned[name]), (
            f"{name} {pinned[name]} does not satisfy {requirement}"
        )


def test_every_dependency_has_a_reason() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").lower()
    alone = r"(?<![\w-]){}(?![\w-])"  # the name itself, not a part of a longer one
    names = {requirement.name.lower() for requirement in direct()}
    missing = [name for name in names if not re.search(alone.format(re.escape(name)), page)]
    assert not missing, f"docs/dependencies.md does not name {sorted(missing)}"


def test_pages_name_the_pinned_torch() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    named = {v for page in pages for v in re.findall(r"torch==([\d.]+\d)", page.read_text("utf-8"))}
    assert named == {str(pins(constraints(), "3.11", "linux")["torch"])}


@each_python
def test_every_constraint_counts_somewhere(python: str) -> None:
    known = {canonicalize_name(r.name) for r, _ in [*locked("lock.txt"), *locked("torch.txt")]} | {
        "mediapipe"
    }
    assert set(pins(constraints(), python, "linux")) <= known


@everywhere
@each_python
def test_lock_agrees_with_the_constraints(python: str, system: str) -> None:
    both = [requirement for requirement, _ in [*locked("lock.txt"), *locked("torch.txt")]]
    versions = pins(both, python, system)
    pinned = pins(constraints(), python, system)
    differing = {n: (v, pinned[n]) for n, v in versions.items() if n in pinned and v != pinned[n]}
    assert not differing, f"run `make lock`: {differing}"
    for requirement in direct():
        name = canonicalize_name(requirement.name)
        if name != "mediapipe" and applies(requirement.marker, python, system):
            assert name in versions, (
                f"run `make lock`: {name} is not locked for Python {python} on {system}"
            )


@pytest.mark.parametrize("name", ["lock.txt", "torch.txt"])
def test_lock_has_a_hash_for_every_package_and_no_address(name: str) -> None:
    entries = locked(name)
    assert len(entries) > 15
    for requirement, hashes in entries:
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", value) for value in hashes)
    assert not re.search(
        r"https?:|file:|--(extra-)?index|--find-links", (ROOT / "requirements" / name).read_text()
    )


def test_torch_and_cuda_are_locked_apart() -> None:
    apart = {canonicalize_name(r.name) for r, _ in locked("torch.txt")}
    rest = {canonicalize_name(r.name) for r, _ in locked("lock.txt")}
    assert "torch" in apart
    assert not apart & rest
    assert not [name for name in rest if name.startswith(("nvidia", "cuda", "triton"))]


def lock_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pyfau_lock", ROOT / "scripts" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lock_covers_every_extra_that_can_be_installed_with_the_others() -> None:
    script = lock_script()
    assert set(script.extras()) == set(project()["optional-dependencies"]) - {"mediapipe"}


def uv() -> str:
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}") or shutil.which("uv")
    if found is None:
        pytest.fail("uv is missing: install pyfau[dev]")
    return found


@pytest.mark.network
@everywhere
@each_python
def test_constraints_resolve_to_wheels(
    python: str, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package index has a wheel of each pinned version."""
    # uv, because pip evaluates markers for its own Python and not for --python-version.
    monkeypatch.setenv("MACOSX_DEPLOYMENT_TARGET", OLDEST_MACOS)
    command = [
        uv(),
        "pip",
        "compile",
        "pyproject.toml",
        "--all-extras",
        "--constraint",
        "constraints.txt",
        "--quiet",
    ]
    command += [
        "--only-binary",
        ":all:",
        "--python",
        sys.executable,
        "--no-header",
        "--no-annotate",
    ]
    command += ["--python-version", python, "--python-platform", UV_PLATFORMS[system]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    resolved = [Requirement(line) for line in done.stdout.splitlines()]
    pinned = pins(constraints(), python, system)
    found = {canonicalize_name(r.name): Version(next(iter(r.specifier)).version) for r in resolved}
    differing = {n: (v, pinned[n]) for n, v in found.items() if n in pinned and v != pinned[n]}
    assert not differing
    assert {"torch", "numpy", "face-alignment"} <= set(found)


@pytest.mark.network
def test_pip_resolves_the_constraints_on_this_python(tmp_path: Path) -> None:
    """What README.md says, without downloading: pip takes metadata alone."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--quiet",
        "--only-binary=:all:",
    ]
    command += ["--target", str(tmp_path), "-c", "constraints.txt"]
    core = [r for r in project()["dependencies"] if not r.startswith("torch")]
    done = subprocess.run(
        [*command, "--no-deps", *core], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.network
def test_lock_is_what_make_lock_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    script = lock_script()
    monkeypatch.setenv("PATH", str(Path(uv()).parent), prepend=os.pathsep)
    others, torch = script.split(script.resolve(script.stored()))
    assert script.LOCK.read_text(encoding="utf-8") == script.LOCK_HEAD + others
    assert script.TORCH_LOCK.read_text(encoding="utf-8") == script.TORCH_HEAD + torch
