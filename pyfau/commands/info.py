"""`pyfau info NAME`: what is known of one model, and whether it is here."""

from __future__ import annotations

from typing import Any

from pyfau.errors import WeightsError


def show_model(name: str) -> int:
    """Print the manifest's entry, the configuration and the place of a model. Nothing is downloaded.

    Raises:
        WeightsError: It is neither in the manifest nor here.
    """
    from pyfau.aus import AU_NAMES
    from pyfau.types import au_name
    from pyfau.weights.manifest import read_manifest
    from pyfau.weights.store import find_model, read_found

    entry = read_manifest().get(name)
    facts: dict[str, Any] = dict(entry.record) if entry is not None else {}
    missing = ""
    try:
        with find_model(name, local_files_only=True) as found:
            _, config, _ = read_found(found)
            facts |= {k: getattr(config, k) for k in ("network", "backbone", "aus", "version")}
            facts |= {"thresholds": config.thresholds, "input size": config.input_size, "made of": config.source}
            facts |= {"sha256": found.sha256, "bytes": found.weights.stat().st_size, "here": found.path}
    except WeightsError as error:
        if entry is None:
            raise
        missing = str(error)
    print(name)
    metrics = facts.pop("reported_metrics", {})
    facts["action units"] = ", ".join(f"{au} {AU_NAMES.get(au_name(au), '')}".strip() for au in facts.pop("aus"))
    facts.pop("template", None)
    for field, value in facts.items():
        text = " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value
        print(f"  {field.replace('_', ' '):16} {text}")
    for metric, value in metrics.items():
        text = ", ".join(f"{k} {v:g}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"  {'reported ' + metric.replace('_', ' '):16} {text}")
    if missing:
        print(f"  {'here':16} no: {missing}")
    return 0
