"""The report: its schema, its assembly from facts, and its form as text."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes

if TYPE_CHECKING:
    from prunec.compiler.report.report import Report as Report
    from prunec.compiler.report.report import report_schema as report_schema

__getattr__, __dir__ = lazy_attributes(
    __name__, dict.fromkeys(("Report", "report_schema"), "prunec.compiler.report.report")
)
