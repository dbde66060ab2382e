"""The report of a search: an HTML page that needs no other file and no network."""

from miniwin.search.report.study_page import render, verdict, write_report

__all__ = ["render", "verdict", "write_report"]
