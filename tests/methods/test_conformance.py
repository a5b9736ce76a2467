"""Every method on a toy network: its budget, the oracle, determinism, what is booked, resuming, and its plan."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunec.calibration.data import Data
from prunec.compiler.facts.progress import Silent
from prunec.compiler.facts.settings import Settings
from prunec.compiler.methods.catalogue import METHODS
from prunec.compiler.methods.method import Method
from prunec.compiler.methods.method_steps import method_steps
from prunec.compiler.pipeline.pipeline import Pipeline, parse_pipeline
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.report.report import Report
from prunec.compiler.stages.driver import compile_model
from prunec.passes import Program, PruneFilters
from prunec.passes.allocation.allocator import Allocator
from prunec.passes.criteria.catalogue import resolve
from prunec.passes.plan import PruningPlan
from prunec.passes.unknown import known
from prunec.runtime.target import Target
from tests.methods.toy import toy
from tests.quarters import quarters

pytestmark = pytest.mark.long
CPU = Target.parse("cpu")
SETTINGS = Settings(latency_runs=3, build_engine=False)
RATIO = 0.5
#: Share of the dense MACs, or of the weights, that a method may miss its budget by.
NEAR = 0.02
EPOCHS = 3
#: What methods that go back to an early epoch are given: its name in the settings, where all have the checkpoint.
_EARLY = {"lottery-ticket": {"early": "early.pt"}}
EVERY = [pytest.param(method, id=name) for name, method in METHODS.items()]


@pytest.fixture(scope="module")
def program() -> Program:
    return toy()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return quarters(tmp_path_factory.mktemp("quarters"), 256, 64)


def pipeline_of(method: Method) -> Pipeline:
    ratio = {"ratio": RATIO} if method.structure == "weights" else {"ratio": RATIO, "round_to": 1, "min_channels": 2}
    tables = {
        "sparsify" if method.structure == "weights" else "prune-filters": ratio,
        "recover": {"epochs": EPOCHS, "batch_size": 32, "probe": 0, **_EARLY.get(method.name, {})},
    }
    return Pipeline(tuple(each.step for each in method_steps(method, tables, CPU, has_data=True)))


def compiled(program: Program, method: Method, data: Data, folder: Path, settings: Settings = SETTINGS) -> Report:
    trained = parse_schedule("step:0=0.01,2=0.001", epochs=4)
    settings = replace(settings, early={"early.pt": program}, pretraining=trained, pretraining_optimizer="sgd")
    return compile_model(program, CPU, pipeline_of(method), data, folder, settings=settings, force=True)


class Epochs(Silent):
    """Counts epochs of training, and stops a compile behind one of them where that is given."""

    def __init__(self, last: int = 0) -> None:
        self.trained, self._last = 0, last

    def step(self, done: int, total: int, note: str) -> None:
        if note.startswith("loss"):
            self.trained += 1
            if self.trained == self._last:
                raise KeyboardInterrupt


def stopped_and_resumed(program: Program, method: Method, data: Data, folder: Path) -> Report:
    """The report of a compile that was stopped behind its second epoch and resumed, as if it had not been."""
    with pytest.raises(KeyboardInterrupt):
        compiled(program, method, data, folder, replace(SETTINGS, progress=Epochs(last=2)))
    left = Epochs()
    report = compiled(program, method, data, folder, replace(SETTINGS, progress=left, resume=True))
    assert 0 < left.trained < EPOCHS
    recovery = known(report.recovery)
    assert recovery is not None
    return report.model_copy(update={"recovery": recovery.model_copy(update={"resumed": False})})


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.usefixtures("exported_anew")
def test_a_method_does_what_it_says(method: Method, program: Program, data: Data, tmp_path: Path) -> None:
    pipeline = pipeline_of(method)
    assert parse_pipeline(str(pipeline)) == pipeline
    report = compiled(program, method, data, tmp_path / "first")
    assert report.passed
    again = stopped_and_resumed if method.hooks else compiled
    assert report.deterministic_part() == again(program, method, data, tmp_path / "second").deterministic_part()
    plan = (tmp_path / "first" / "plan.json").read_text()
    assert PruningPlan.from_json(plan).to_json() == plan
    if method.structure == "filters":
        oracle = known(report.oracle)
        assert oracle is not None
        error = known(oracle.masked_max_relative_error)
        assert error is not None
        assert error < 1e-9
        uniform = PruneFilters(ratio=RATIO, min_channels=2).run(program).program
        asked, got, dense = uniform.macs(), report.macs.compiled, report.macs.dense
        assert got <= asked * (1 + 1e-9)
        assert asked - got <= NEAR * dense or not _fits_one_more(program, report, asked)
    else:
        assert _masked_share(report, tmp_path / "first") == pytest.approx(RATIO, abs=0.001)
    ledger = known(report.ledger)
    assert ledger is not None
    trained = [known(entry.epochs) for entry in ledger if entry.stage == "recover"]
    levels = len([step for step in pipeline.steps if step.name == "sparsify"]) if method.level_share else 1
    assert sum(filter(None, trained)) == EPOCHS * levels
    if resolve(method.criterion).needs - {"weights", "decisions"}:
        looked_at = [known(entry.samples) for entry in ledger if entry.stage in ("prune-filters", "sparsify")]
        assert any(looked_at)


def _fits_one_more(program: Program, report: Report, budget: int) -> bool:
    """Whether any group could keep one unit more within so many MACs."""
    pruning = known(report.pruning)
    assert pruning is not None
    allocator = Allocator.of(program, PruneFilters(ratio=RATIO))
    kept = {group.name: group.kept for group in pruning.groups}
    widths = np.array([kept.get(group.name, group.count) for group in allocator.scope.coupling.groups])
    wider = [widths + one for one in np.eye(len(widths), dtype=np.int64)]
    dense = [group.count for group in allocator.scope.coupling.groups]
    return any((each <= dense).all() and allocator.figures(each)["macs"] <= budget for each in wider)


def _masked_share(report: Report, bundle: Path) -> float:
    """Share of the weights of all layers that is zero in the compiled network."""
    tensors = Program.load(bundle / "model.pt2", trust=True).tensors()
    weights = [tensors[f"{layer.name}.weight"] for layer in report.layers]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
