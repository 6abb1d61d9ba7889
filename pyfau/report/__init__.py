"""The report of one result: a page of HTML, and static plots."""

from pyfau.report.figures import plot_average, plot_co_occurrence, plot_groups, plot_intersubject
from pyfau.report.html import write_report
from pyfau.report.plot import plot_result

__all__ = [
    "plot_average",
    "plot_co_occurrence",
    "plot_groups",
    "plot_intersubject",
    "plot_result",
    "write_report",
]
