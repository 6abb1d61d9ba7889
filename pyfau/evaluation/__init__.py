"""Scores against human labels: the paper's protocol on BP4D and DISFA, and your own labels.

`run` evaluates as a whole. Below it: `lists` reads the official lists and cuts the clips,
`protocol` scores and stores them, `labels` matches your labels with pyfau's tables, `metrics`
measures, `comparison` prints the measures next to the paper's figures.
"""

from pyfau.evaluation.comparison import render
from pyfau.evaluation.run import ListOptions, TableOptions, evaluate_lists, evaluate_tables

__all__ = ["ListOptions", "TableOptions", "evaluate_lists", "evaluate_tables", "render"]
