"""Dependencies run one way, and packages can be imported without what is slow to load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Bottom to top: each may import itself and those before it.
LAYERS = ("passes", "runtime", "calibration", "compiler")
TORCH_FREE = (
    "prunec.passes",
    "prunec.passes.errors",
    "prunec.passes.rules",
    "prunec.runtime",
    "prunec.runtime.engines",
    "prunec.runtime.target",
    "prunec.calibration",
    "prunec.calibration.config",
    "prunec.compiler",
    "prunec.compiler.recovery",
    "prunec.compiler.cli",
    "prunec.compiler.cli.main",
)


def imports(path: Path) -> set[str]:
    """Packages of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("prunec.")}
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_is_below_it(layer: str) -> None:
    allowed = set(LAYERS[: LAYERS.index(layer) + 1])
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    for path in files:
        assert imports(path) <= allowed, path


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
        "found = [m for m in ('torch', 'onnx', 'numpy', 'pydantic') if m in sys.modules]; assert not found, found"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("package", ["prunec.passes", "prunec.runtime", "prunec.calibration", "prunec.compiler"])
def test_every_public_name_is_there(package: str) -> None:
    import importlib

    module = importlib.import_module(package)
    names = [name for name in dir(module) if not name.startswith("_")]
    for name in names:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError):
        module.nothing_of_that_name  # noqa: B018


def test_the_public_api_is_what_other_programs_call() -> None:
    import prunec.compiler
    import prunec.passes

    assert set(dir(prunec.compiler)) >= {
        *("capture", "load_checkpoint", "compile_model", "apply_plan", "Program", "Target"),
    }
    assert set(dir(prunec.passes)) >= {"PruneFilters", "Sparsify", "analyse", "check_oracle"}
