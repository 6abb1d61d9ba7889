"""Many inputs: planning, scoring and workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyfau.lazy import lazy_names

if TYPE_CHECKING:
    from pyfau.batch.plan import Job, expand, plan_jobs
    from pyfau.batch.run import JobOptions, Report, run_job
    from pyfau.batch.scoring import Batch, ScoreOptions, score
    from pyfau.batch.workers import LocalWorkers, share_out

__all__ = [
    "score",
    "Batch",
    "ScoreOptions",
    "Job",
    "expand",
    "plan_jobs",
    "JobOptions",
    "Report",
    "run_job",
    "LocalWorkers",
    "share_out",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "score": "scoring",
        "Batch": "scoring",
        "ScoreOptions": "scoring",
        "Job": "plan",
        "expand": "plan",
        "plan_jobs": "plan",
        "JobOptions": "run",
        "Report": "run",
        "run_job": "run",
        "LocalWorkers": "workers",
        "share_out": "workers",
    },
)
