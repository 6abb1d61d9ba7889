"""Write the software bill of materials (SBOM) of pyfau in CycloneDX format.

    python scripts/sbom.py -o build/pyfau.cdx.json      # what `make sbom` runs

It lists the installed versions of the packages that pyfau needs, without those of the extras, and
the files by others that the wheel contains: weights and an image. cyclonedx-bom (in pyfau[dev])
finds the packages, their licences and what needs what. Run it with the Python of the environment
that it should describe.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = SchemaVersion.V1_6
# Files by others, or trained here, that lie in the wheel: path, name, type, licence.
EMBEDDED = (
    ("pyfau/assets/mtcnn/model.safetensors", "mtcnn", "machine-learning-model", "MIT"),
    (
        "pyfau/assets/face-mesh-lite/model.safetensors",
        "face-mesh-lite",
        "machine-learning-model",
        "MIT",
    ),
    ("pyfau/assets/covered/model.safetensors", "covered", "machine-learning-model", "MIT"),
    ("pyfau/assets/identity/model.safetensors", "identity", "machine-learning-model", "MIT"),
    ("pyfau/assets/mdhr-lite/model.safetensors", "mdhr-lite", "machine-learning-model", "MIT"),
    ("pyfau/assets/demo/portrait.webp", "astronaut-portrait", "data", None),
    ("pyfau/assets/calibration/faces.webp", "calibration-crops", "data", "MIT"),
)
PUBLIC_DOMAIN = "Public domain (NASA)"


def version() -> str:
    """The version of pyfau in this checkout."""
    text = (ROOT / "pyfau" / "version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, flags=re.MULTILINE)
    if found is None:
        raise SystemExit('pyfau/version.py has no line __version__ = "..."')
    return found[1]


def core_names() -> set[str]:
    """The packages that every installation of pyfau needs, by their normalised names."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    return {canonicalize_name(Requirement(text).name) for text in dependencies}


def environment() -> dict[str, Any]:
    """All packages of this environment, as cyclonedx-bom finds them."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", sys.executable]
    command += ["--pyproject", "pyproject.toml", "--mc-type", "library", "--output-reproducible"]
    command += ["--spec-version", SCHEMA.to_version()]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    bom: dict[str, Any] = json.loads(done.stdout)
    return bom


def requirements_of(name: str, extras: frozenset[str]) -> list[Requirement]:
    """What an installed package needs on this system, with these of its extras."""
    try:
        declared = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        raise SystemExit(
            f"{name} is not installed: install pyfau in this environment first"
        ) from None
    found = []
    for text in declared:
        requirement = Requirement(text)
        marker = requirement.marker
        contexts = [{"extra": extra} for extra in ("", *extras)]
        if marker is None or any(marker.evaluate(context) for context in contexts):
            found.append(requirement)
    return found


def needed() -> dict[str, list[str]]:
    """The core packages and all that they need in turn: normalised name to names that it needs.

    cyclonedx-bom also follows the extras that a package offers but nobody requested, so its own
    graph would add most of the development tools.
    """
    waiting = [(name, frozenset[str]()) for name in sorted(core_names())]
    seen = set()
    edges: dict[str, list[str]] = {}
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for requirement in requirements_of(name, extras):
            other = canonicalize_name(requirement.name)
            edges.setdefault(name, []).append(other)
            waiting.append((other, frozenset(requirement.extras)))
        edges.setdefault(name, [])
    return edges


def embedded() -> list[dict[str, Any]]:
    """One component for each file by others in the wheel, with its hash."""
    components = []
    for path, name, kind, licence in EMBEDDED:
        digest = hashlib.sha256((ROOT / path).read_bytes()).hexdigest()
        licence_entry = {"id": licence} if licence else {"name": PUBLIC_DOMAIN}
        component = {
            "bom-ref": f"embedded:{name}",
            "type": kind,
            "name": name,
            "description": f"In the wheel as {path}; see THIRD_PARTY_NOTICES.md.",
            "hashes": [{"alg": "SHA-256", "content": digest}],
            "licenses": [{"license": licence_entry}],
        }
        components.append(component)
    return components


def make_sbom() -> dict[str, Any]:
    """The bill of materials as a JSON object."""
    bom = environment()
    needs = needed()
    packages = [c for c in bom["components"] if canonicalize_name(c["name"]) in needs]
    references = {canonicalize_name(c["name"]): c["bom-ref"] for c in packages}
    edges = []
    for name, others in needs.items():
        entry = {"ref": references[name]}
        if others:
            entry["dependsOn"] = sorted({references[other] for other in others})
        edges.append(entry)
    files = embedded()
    edges += [{"ref": component["bom-ref"]} for component in files]
    root = bom["metadata"]["component"]
    root |= {"version": version(), "purl": f"pkg:pypi/pyfau@{version()}"}
    direct = [references[name] for name in sorted(core_names())]
    direct += [component["bom-ref"] for component in files]
    edges.append({"ref": root["bom-ref"], "dependsOn": direct})
    return bom | {"components": packages + files, "dependencies": edges}


def main() -> None:
    """Write the bill of materials, after a check against the schema of CycloneDX."""
    parser = argparse.ArgumentParser(description="Write the SBOM of pyfau (CycloneDX, JSON).")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "pyfau.cdx.json")
    output = parser.parse_args().output
    text = json.dumps(make_sbom(), indent=2) + "\n"
    error = make_schemabased_validator(OutputFormat.JSON, SCHEMA).validate_str(text)
    if error is not None:
        raise SystemExit(f"the SBOM does not fit its schema: {error}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main()
