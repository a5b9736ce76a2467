import csv
import io

from rich.console import Console

from prunec.compiler.gates.judging import judged
from prunec.compiler.gates.own_gates import MaxDropPoints, MinSpeedup
from prunec.compiler.pipeline.own_steps import ACCURACY_STAGES
from prunec.compiler.report.last_line import result_line
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import layers_csv, report_line, summary_lines, summary_table
from prunec.compiler.report.training_parts import AccuracyPart
from prunec.passes.unknown import Unknown
from tests.compiler.sample_report import sample_report


def failed_report() -> Report:
    return judged(sample_report(), [MaxDropPoints(0.5), MinSpeedup(2)], allow_unknown=False)


def test_the_last_line_gives_figures_against_limits() -> None:
    assert report_line(sample_report()) == (
        "PASSED | MACs 2.03x, measured on this CPU 1.81x [1.78, 1.85], 2:4 in 15 of 16 layers (0 could be, "
        "1 cannot be), "
        "accuracy lost 0.62 <= 1 points, ONNX against torch, relative error 4.8e-07 <= 0.0001, "
        "engines built 1 >= 1 | prunec compile examples/fashion_mnist/model.pt --target a100-2:4"
    )


def test_the_last_line_of_a_failure_names_the_gates() -> None:
    line = report_line(failed_report())
    assert line.startswith("FAILED | ")
    assert "accuracy lost 0.62 +- 1.1 > 0.5 points (failed)" in line
    assert "measured speed-up not known (limit 2x) (unknown)" in line


def test_the_last_line_without_a_gate_still_has_the_accuracy() -> None:
    assert "accuracy lost 0.62 points" in report_line(sample_report(gates=()))


def test_result_line() -> None:
    assert result_line(True, ["accuracy 91.52 %"], "prunec eval x") == "PASSED | accuracy 91.52 % | prunec eval x"
    assert result_line(False, [], "prunec verify x") == "FAILED | no figures | prunec verify x"


def test_summary_lines_are_ascii_and_group_what_is_unknown() -> None:
    lines = summary_lines(sample_report())
    assert "\n".join(lines).isascii()
    assert any(line.startswith("Accuracy lost") and "0.62 points" in line for line in lines)
    assert any(
        line.startswith("Not known") and "accuracy.engine, environment.gpu_state, latency" in line for line in lines
    )
    assert sum("needs an NVIDIA A100" in line for line in lines) == 1


def test_the_table_holds_the_same_rows() -> None:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(summary_table(failed_report()))
    text = console.export_text()
    assert "FAILED (exit code 5)" in text
    assert "Gate failed" in text


def test_unmeasured_figures_say_so() -> None:
    no_data = Unknown("no data.")
    accuracy = AccuracyPart(metric="top1", **dict.fromkeys(ACCURACY_STAGES, no_data))
    report = sample_report(latency_cpu=no_data, accuracy=accuracy, gates=())
    lines = summary_lines(report)
    assert any("Accuracy lost" in line and "not measured (no data.)" in line for line in lines)
    assert any("Measured speed-up" in line and "not measured" in line for line in lines)
    assert "measured" not in report_line(report)


def test_layers_csv_has_every_layer() -> None:
    report = sample_report()
    rows = list(csv.DictReader(io.StringIO(layers_csv(report.layers))))
    assert [row["name"] for row in rows] == [layer.name for layer in report.layers]
    assert rows[0]["reason"] == "1 input channel: not a multiple of 4"
    assert (rows[1]["shape"], rows[1]["compiled_shape"], rows[1]["kept"]) == ("16x16x3x3", "8x16x3x3", "8")
    assert (rows[1]["valid"], rows[1]["sparse_ms"]) == ("true", "")
