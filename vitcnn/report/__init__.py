"""The report: claims, figures and tables of Results in one HTML page."""

from vitcnn.report.agreement import agreement
from vitcnn.report.page import drawings, hover, html, read, tables, write

__all__ = ["agreement", "drawings", "hover", "html", "read", "tables", "write"]
