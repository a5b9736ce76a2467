import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from prunec.compiler.drawing.report_charts import charts
from prunec.compiler.drawing.report_page import render_html
from prunec.compiler.drawing.templating import environment
from prunec.compiler.report.headline_figures import TIMES
from prunec.compiler.report.report import Report
from prunec.passes.unknown import Unknown
from tests.compiler.sample_report import sample_fields, sample_report

HOSTILE = '</script><img src="https://example.org/x" onerror="alert(1)">&amp;'


class Page(HTMLParser):
    """Collects the elements, their attributes and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._skipping = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._skipping = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._skipping = False

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self.text += data


@pytest.fixture(scope="module")
def html() -> str:
    return render_html(sample_report())


def embedded_charts(html: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_page_loads_nothing(html: str) -> None:
    page = Page(html)
    assert not [tag for tag, attributes in page.elements if {"src", "href", "srcset"} & attributes.keys()]
    assert not {"link", "iframe", "img", "object"} & {tag for tag, _ in page.elements}
    assert "default-src 'none'" in html
    assert "@import" not in html.split("<script>", maxsplit=1)[0]


def test_the_same_report_gives_the_same_page(html: str) -> None:
    assert render_html(Report.from_json(sample_report().to_json())) == html


def test_the_filters_of_the_page_are_its_own(html: str) -> None:
    assert "%" in html
    assert "megabytes" not in environment().filters


def test_the_page_says_what_matters(html: str) -> None:
    text = Page(html).text
    for words in (
        *("a100-2:4-fp16", "PASSED", f"2.03{TIMES}", f"1.81{TIMES}", "0.62 points", "15 of 16", "360 kB"),
        *("not on the target", "TensorRT itself cannot load it", "1 input channel: not a multiple of 4"),
        *("needs an NVIDIA A100", "stage3.1.conv2", "onnxruntime", "accuracy lost 0.62 ≤ 1 points"),
    ):
        assert words in text


def test_every_chart_has_its_place(html: str) -> None:
    ids = {attributes.get("id") for _, attributes in Page(html).elements}
    found = embedded_charts(html)
    assert set(found) == {"accuracy", "curve", "widths", "latency-cpu"}
    assert {f"chart-{name}" for name in found} <= ids


def test_charts_show_the_numbers_of_the_report() -> None:
    report = sample_report()
    found = charts(report)
    assert found["accuracy"]["data"][0]["y"] == pytest.approx([92.14, 11.24, 10.18, 91.52, 91.52])
    assert found["widths"]["data"][1]["y"] == [layer.kept for layer in report.layers]
    assert not isinstance(report.recovery, Unknown)
    assert found["curve"]["data"][2]["y"] == [point.learning_rate for point in report.recovery.curve]
    assert found["curve"]["data"][2]["yaxis"] == "y2"
    assert found["latency-cpu"]["data"][0]["y"] == [0.612, 0.655, 0.803]


def test_a_step_schedule_gets_a_logarithmic_axis() -> None:
    recovery = sample_fields()["recovery"]
    curve = tuple(p.model_copy(update={"learning_rate": 0.1 if p.epoch < 10 else 0.01}) for p in recovery.curve)
    step = sample_report(recovery=recovery.model_copy(update={"curve": curve}))
    assert charts(step)["curve"]["layout"]["yaxis2"]["type"] == "log"
    assert "type" not in charts(sample_report())["curve"]["layout"]["yaxis2"]


def test_names_are_escaped() -> None:
    first, *others = sample_fields()["layers"]
    html = render_html(sample_report(layers=(first.model_copy(update={"name": HOSTILE}), *others), command=HOSTILE))
    page = Page(html)
    assert "img" not in {tag for tag, _ in page.elements}
    assert page.text.count(HOSTILE) == 2
    assert HOSTILE not in html
    label = charts(sample_report(layers=(first.model_copy(update={"name": "a<b>c"}),)))["widths"]["data"][0]["x"][0]
    assert label == "a&lt;b&gt;c"  # Plotly reads labels as HTML


def test_a_report_without_data_or_engine_still_makes_a_page() -> None:
    gone = ("data", "recovery", "pruning", "engine", "latency_cpu", "oracle")
    changes = dict.fromkeys(gone, Unknown("not asked for.")) | {"layers": (), "gates": ()}
    changes |= {"status": "FAILED", "exit_code": 4}
    html = render_html(sample_report(**changes))
    assert set(embedded_charts(html)) == {"accuracy"}
    text = Page(html).text
    assert "FAILED, exit code 4" in text
    assert "No engine: not asked for." in text


@pytest.mark.long
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_a_browser_draws_every_chart(html: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(html, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = ["chromium", *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    drawn = set(re.findall(r'<div class="chart js-plotly-plot" id="chart-([a-z-]+)"', found.stdout))
    assert drawn == {"accuracy", "curve", "widths", "latency-cpu"}
    assert "after recovery" in found.stdout.split("<script>")[0]
