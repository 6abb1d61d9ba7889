"""Requests to the Hub in a fresh process: its client reads the environment when it is imported."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pyfau import AUDetector, WeightsError, load_model
from pyfau.cli import main
from pyfau.errors import OptionError
from pyfau.weights import manifest, transfer

Job = tuple[list[Any], dict[str, Any] | None]


def answer(kind: str, *arguments: Any) -> dict[str, Any]:
    if kind == "cli":
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(arguments)
        return {"status": status, "out": out.getvalue(), "err": err.getvalue()}
    name, options = arguments
    load: Any = {"load": load_model, "detect": AUDetector}[kind]
    try:
        made = load(name, **options)
    except (WeightsError, OptionError) as error:
        return {"error": str(error)}
    return {"sum": float(getattr(made, "model", made).classifier.double().sum())}


def answer_all(job: Job) -> list[dict[str, Any]]:
    """Answers to the requests, with a manifest of these models if any are given."""
    requests, models = job
    transfer.GRACE_S = float(os.environ.get("TEST_GRACE_S", transfer.GRACE_S))
    if models is not None:
        text = json.dumps({"format": 1, "models": models})
        manifest._manifest_text = lambda: text
    return [answer(*request) for request in requests]


def run(job: Job, environment: dict[str, str], answers: Connection, errors: Path) -> None:
    """In a process forked from one that has imported torch, and not the Hub's client."""
    assert "huggingface_hub" not in sys.modules
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    answers.send(answer_all(job))


if __name__ == "__main__":
    print(json.dumps(answer_all(json.loads(sys.argv[1]))))
