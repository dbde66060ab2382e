"""The report of a search: one HTML page that needs nothing else, not even a network."""

from miniwin.search.report.study_page import render, verdict, write_report

__all__ = ["render", "verdict", "write_report"]
