"""Dependencies run one way, and packages can be imported without what is slow to load."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Bottom to top: each may import itself and those before it.
LAYERS = ("passes", "runtime", "calibration", "compiler")
TORCH_FREE = (
    "prunec.passes",
    "prunec.passes.allocation",
    "prunec.passes.allocation.goals",
    "prunec.passes.criteria",
    "prunec.passes.criteria.catalogue",
    "prunec.passes.criteria.cc",
    "prunec.passes.criteria.ccp",
    "prunec.passes.criteria.elements",
    "prunec.passes.criteria.filters",
    "prunec.passes.criteria.hrank",
    "prunec.passes.criteria.obd",
    "prunec.passes.criteria.obs",
    "prunec.passes.criteria.provable",
    "prunec.passes.errors",
    "prunec.passes.interruption",
    "prunec.passes.low_rank",
    "prunec.passes.fold",
    "prunec.passes.notation",
    "prunec.passes.operators",
    "prunec.passes.options",
    "prunec.passes.patterns.pattern",
    "prunec.passes.patterns.rule",
    "prunec.passes.permute",
    "prunec.passes.plugins",
    "prunec.passes.policy",
    "prunec.passes.prune_filters",
    "prunec.passes.rules",
    "prunec.passes.sparsify",
    "prunec.passes.unknown",
    "prunec.runtime",
    "prunec.runtime.devices",
    "prunec.runtime.engines",
    "prunec.runtime.engines.catalogue",
    "prunec.runtime.engines.protocol",
    "prunec.runtime.target",
    "prunec.calibration",
    "prunec.calibration.augment_options",
    "prunec.calibration.batchnorm",
    "prunec.calibration.config",
    "prunec.compiler",
    "prunec.compiler.recovery",
    "prunec.compiler.recovery.optimizer_kinds",
    "prunec.compiler.recovery.pretrain_options",
    "prunec.compiler.recovery.recover_options",
    "prunec.compiler.recovery.regimes",
    "prunec.compiler.recovery.regimes.cnn_fcf",
    "prunec.compiler.recovery.regimes.dcp",
    "prunec.compiler.recovery.regimes.gal",
    "prunec.compiler.recovery.regimes.greg",
    "prunec.compiler.recovery.regimes.lfpc",
    "prunec.compiler.recovery.regimes.network_slimming",
    "prunec.compiler.recovery.regimes.resrep",
    "prunec.compiler.recovery.regimes.sfp",
    "prunec.compiler.recovery.regimes.ssl",
    "prunec.compiler.cli",
    "prunec.compiler.cli.main",
)


def imports(path: Path) -> set[str]:
    """Packages of ours that a file imports, anywhere in it."""
    return {name.split(".")[1] for name in imported_names(path)}


def imported_names(path: Path) -> set[str]:
    """Names of ours that a file imports, anywhere in it but for type checkers."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in (node for node in ast.walk(tree) if id(node) not in for_types):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name for name in names if name.startswith("prunec.")}
    return found


def imported_files(path: Path) -> set[Path]:
    """Modules of ours that a file imports, anywhere in it; packages, which import lazily, don't count."""
    return {file for name in imported_names(path) if (file := source_of(name)) is not None and file != path}


def source_of(name: str) -> Path | None:
    """The module that a name is, or is an attribute of."""
    parts = name.split(".")[1:]
    files = (ROOT.joinpath(*parts[:end]).with_suffix(".py") for end in (len(parts), len(parts) - 1) if end)
    return next((file for file in files if file.is_file()), None)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_is_below_it(layer: str) -> None:
    allowed = set(LAYERS[: LAYERS.index(layer) + 1])
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    for path in files:
        assert imports(path) <= allowed, path


@pytest.mark.parametrize("layer", LAYERS)
def test_modules_import_each_other_without_circles(layer: str) -> None:
    """Imports within functions count too: a circle that is hidden so is still one."""
    graph = TopologicalSorter(
        {path: imported_files(path) for path in (ROOT / layer).rglob("*.py") if path.name != "__init__.py"}
    )
    graph.prepare()


def test_nothing_of_ours_is_imported_by_its_bare_folder_name() -> None:
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    assert node.module.split(".")[0] not in LAYERS, path


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_free(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "slow = {'torch', 'onnx', 'numpy', 'numba', 'pydantic'} & sys.modules.keys(); assert not slow, slow"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


#: What other programs import: a name that goes, or comes, changes this table too.
PUBLIC = {
    "prunec.passes": {
        *(
            "Decompose",
            "FoldParameters",
            "OracleReport",
            "PassResult",
            "Permute",
            "Policy",
            "Program",
            "PruneFilters",
            "PrunecError",
        ),
        *("PruningPlan", "Sparsify", "analyse", "apply_plan", "capture", "check_oracle", "select_outputs"),
    },
    "prunec.passes.criteria": {
        *("Activation", "BatchNormGate", "CRITERIA", "Criterion", "Evidence", "GateGradient", "InputActivation"),
        *("InputMoments", "Moments", "Seen", "Statistic", "WeightGradient", "criterion_text"),
    },
    "prunec.runtime": {
        *("DEVICES", "Target", "check_sparsity", "compare_latency", "export_onnx", "onnx_vs_torch", "profile_onnx"),
        *("to_bf16", "to_fp16", "top1", "top5"),
    },
    "prunec.runtime.engines": {
        *("EngineInfo", "EngineKind", "EngineOptions", "OnnxRuntimeSession", "Session", "SizeRange"),
        *("TensorRTSession", "choose_engine"),
    },
    "prunec.calibration": {"Data", "DataConfig", "Split", "collect_evidence", "load_data"},
    "prunec.compiler": {
        *("LoadedCheckpoint", "Objective", "Program", "Report", "Settings", "Target", "apply_plan", "capture"),
        *("compile_model", "load_checkpoint"),
    },
    "prunec.compiler.facts": {"Aim", "StepCost", "StepInput", "StepOutput"},
    "prunec.compiler.fairness": {
        *("Comparison", "RunCard", "compare_pair", "comparison_level", "read_cards", "report_card")
    },
    "prunec.compiler.pipeline": {
        *("After", "Pipeline", "Repeat", "Step", "StepKind", "make_step", "needs_inputs", "needs_labels"),
        "parse_pipeline",
    },
    "prunec.compiler.recovery": {
        *("Attachment", "Batch", "HookCost", "Moment", "OwnOptimizer", "OwnParameters", "Recover", "Recovered"),
        *("RunningHook", "Schedule", "TrainingContext", "TrainingHook", "parse_schedule"),
    },
    "prunec.compiler.report": {"Report", "report_schema"},
}


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_a_contract(package: str) -> None:
    module = importlib.import_module(package)
    names = {name for name in dir(module) if not name.startswith("_")}
    submodules = {name for name in names if inspect.ismodule(getattr(module, name))}
    assert names - submodules == PUBLIC[package]
    for name in PUBLIC[package]:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError):
        module.nothing_of_that_name  # noqa: B018


def test_the_signatures_that_other_programs_call() -> None:
    from prunec.compiler import compile_model, load_checkpoint
    from prunec.compiler.fairness import comparison_level
    from prunec.compiler.recovery import parse_schedule
    from prunec.passes import PruneFilters, apply_plan, capture, check_oracle

    def names(function: Callable[..., object]) -> list[str]:
        return list(inspect.signature(function).parameters)

    assert names(capture) == ["module", "args", "kwargs", "dynamic_shapes"]
    assert names(compile_model)[:5] == ["program", "target", "pipeline", "data", "output"]
    assert {"path", "model", "trust"} <= set(names(load_checkpoint))
    assert names(comparison_level) == ["report_a", "report_b"]
    assert names(parse_schedule) == ["text", "epochs", "original"]
    assert names(apply_plan)[:2] == ["module", "plan"]
    assert names(check_oracle) == ["program", "result", "args", "kwargs"]
    assert names(PruneFilters.run) == ["self", "program", "evidence", "costs", "sizes"]


def test_no_module_of_the_compiler_is_long() -> None:
    for path in (ROOT / "compiler").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path


def test_one_name_means_one_class() -> None:
    places: dict[str, list[Path]] = {}
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
