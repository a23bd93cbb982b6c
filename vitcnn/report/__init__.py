"""The report: claims, figures and tables of Results in one HTML page."""

from vitcnn.report.agreement import agreement
from vitcnn.report.page import drawings, hover, html, read, tables, write
from vitcnn.report.transfer import best_layers

__all__ = ["agreement", "best_layers", "drawings", "hover", "html", "read", "tables", "write"]
