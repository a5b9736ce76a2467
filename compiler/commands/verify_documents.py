"""The documents of a bundle: the files that are there, and what they say, held against the report and the program."""

import csv
import io
import tomllib
from collections.abc import Mapping, Sequence

from prunec.compiler.bundle.bundle_names import (
    COSTS,
    LAYERS,
    MODEL_ONNX,
    MODEL_PT2,
    PLAN,
    RECIPE,
    REPORT,
    REPORT_PAGE,
    TYPED_ONNX,
    typed_name,
)
from prunec.compiler.bundle.bundle_reader import Bundle
from prunec.compiler.bundle.manifest import MANIFEST_NAME
from prunec.compiler.commands.verify_checks import NotCheckedError, refuse
from prunec.compiler.commands.verify_costs import has_cost_file
from prunec.compiler.commands.verify_network import is_cut, kept_of, unique_layers
from prunec.compiler.drawing.report_page import render_html
from prunec.compiler.machine.versions import tool_version
from prunec.compiler.report.engine_facts import target_and_engine
from prunec.compiler.report.network_parts import LayerPart
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import layers_csv
from prunec.passes.errors import InputError, MissingDependencyError, UsageError
from prunec.passes.factorizing import kept_in_factors
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown, known
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.target import Target

#: Weights of models above 2 GB.
_WEIGHTS_BESIDE = ".data"
_INSTALL = "Install the package that brings them; prunec doctor lists those that are there."


def check_files(bundle: Bundle) -> str:
    """Say that a bundle has the files that its report asks for, and no others.

    Raises:
        InputError: One is missing, or there is another file, link or folder.
    """
    typed = _typed(bundle.report)
    needed = {MODEL_ONNX, MODEL_PT2, PLAN, RECIPE, REPORT, LAYERS, *typed, *_engine(bundle.report)}
    needed |= {COSTS} if has_cost_file(bundle.report.costs) else set()
    models = {MODEL_ONNX, *(typed or TYPED_ONNX.values())}  # any, where the target is of a plug-in that isn't here
    allowed = {REPORT_PAGE, *models, *(f"{name}{_WEIGHTS_BESIDE}" for name in models)}
    there = {path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*")} - {MANIFEST_NAME}
    problems = [f"{name} is missing" for name in sorted(needed - there)]
    problems += [f"{name} is no file of a bundle" for name in sorted(there - needed - allowed)]
    refuse(str(bundle.folder), problems)
    return f"{len(there)} files, all of which a bundle has"


def _typed(report: Report) -> set[str]:
    """Name of the ONNX file that the engine is built from.

    Raises:
        InputError: Neither prunec nor a plug-in that is installed knows the target.
    """
    try:
        return {typed_name(Target.parse(report.target))}
    except (UsageError, MissingDependencyError) as error:
        raise InputError(f"{REPORT}: {error.message}", hint=_INSTALL) from error


def _engine(report: Report) -> set[str]:
    """Name of the engine's file.

    Raises:
        InputError: It is none that an engine of its kind has, or neither prunec nor a plug-in knows the kind.
    """
    if isinstance(report.engine, Unknown):
        return set()
    path = report.engine.path
    try:
        target, kind = target_and_engine(report)
    except MissingDependencyError as error:
        raise InputError(f"{REPORT}: {error.message}", hint=_INSTALL) from error
    expected = kind.file_name or typed_name(target)
    if path != expected:
        raise InputError(f"{REPORT}: the engine is {path!r}, expected {expected!r}")
    with ENGINES.blame(kind.name):
        is_served = kind.serves(target)
    if not is_served:
        raise InputError(f"{REPORT}: {kind.title} builds no engine for {target}")
    return {path}


def check_versions(bundle: Bundle) -> str:
    """Say that the manifest and the report name the same versions of the tools.

    Where an engine was built on another machine the manifest names those of that machine.

    Raises:
        InputError: They differ, and no engine was built since.
    """
    compiled, built, engine = bundle.report.environment.versions, bundle.manifest.versions, known(bundle.report.engine)
    others = [tool for tool in sorted(compiled.keys() | built.keys()) if compiled.get(tool) != built.get(tool)]
    if not others:
        return "the manifest and the report name the same"
    builder = None if engine is None else known(engine.builder)
    if engine is None or builder not in (None, f"{engine.kind} {built.get(engine.kind)}"):
        first = others[0]
        raise InputError(
            f"{MANIFEST_NAME} has {first} {built.get(first)}, {REPORT} has {compiled.get(first)}, and no engine was "
            "built since"
        )
    return f"the engine was built with another version of {' and '.join(others)} than the network was compiled with"


def check_plan(bundle: Bundle, program: Program) -> str:
    """Say that the plan keeps as much of every tensor as the program has of it, and what the report's layers have.

    Raises:
        InputError: It is no plan, or that of another network.
    """
    tensors, plan = program.tensors(), PruningPlan.from_json(_text(bundle, PLAN))
    names, by_weight = kept_of(plan, program)
    problems = []
    problems += [f"it removes {name}, which the program has" for name in plan.gone if name in tensors]
    kept = kept_in_factors(plan, program)
    for name, dims in ((name, kept[name]) for name in names):
        present = names[name]
        if present is None or not is_cut(dims, tensors[present]):
            shape = "no such tensor" if present is None else list(tensors[present].shape)
            counts = {dim: len(indices) for dim, indices in dims.items()}
            problems.append(f"it keeps so many slices by dimension of {name}: {counts}, and the program has {shape}")
        elif any(len(set(indices)) < len(indices) or min(indices) < 0 for indices in dims.values()):
            problems.append(f"it keeps indices of {name} twice, or below 0")
    for row, layer in zip(bundle.report.compiled_layers, unique_layers(program), strict=False):
        if layer.weight in tensors and row.factor_of is None and not _fits(row, by_weight.get(layer.weight, {})):
            problems.append(f"it doesn't make {row.compiled_shape} of {row.name}'s {row.shape}")
    refuse(PLAN, problems)
    branches = f", {len(plan.removed_branches)} branches are gone" if plan.removed_branches else ""
    folded = len(kept) - len(names)
    others = f"; {folded} are not there, whose norms were folded" if folded else ""
    ranks = f", {len(plan.ranks)} layers are decomposed" if plan.ranks else ""
    return f"{len(names)} tensors have the sizes that the plan keeps{branches}{ranks}{others}"


def _fits(row: LayerPart, kept: Mapping[int, Sequence[int]]) -> bool:
    """Whether indices by dimension make a layer's compiled shape of its dense one."""
    if len(row.shape) != len(row.compiled_shape):
        return False
    whole = all(row.shape[d] == row.compiled_shape[d] for d in range(len(row.shape)) if d not in kept)
    return whole and all(max(indices, default=0) < row.shape[d] for d, indices in kept.items() if d < len(row.shape))


def check_recipe(bundle: Bundle) -> str:
    """Say that the recipe is that of the report.

    Raises:
        InputError: It can't be read, or differs.
    """
    try:
        recipe = tomllib.loads(_text(bundle, RECIPE))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{RECIPE} can't be read: {error}") from error
    seed = bundle.report.runs[0].seed if bundle.report.runs else None
    expected = {"recipe": {"seed": seed, "pipeline": bundle.report.pipeline}}
    if recipe != expected:
        raise InputError(f"{RECIPE} holds {recipe}, the report {expected}")
    if bundle.manifest.seed != seed:
        raise InputError(f"{MANIFEST_NAME} has the seed {bundle.manifest.seed}, the report {seed}")
    return "the seed and the pipeline of the report"


def check_layers(bundle: Bundle) -> str:
    """Say that layers.csv holds the layers of the report.

    A column that the table lacks, which an older prunec wrote, must be empty in the report too.

    Raises:
        InputError: A cell differs.
    """
    expected = list(csv.DictReader(io.StringIO(layers_csv(bundle.report.layers))))
    try:
        got = list(csv.DictReader(io.StringIO(_text(bundle, LAYERS))))
    except csv.Error as error:
        raise InputError(f"{LAYERS} can't be read: {error}") from error
    if len(got) != len(expected):
        raise InputError(f"{LAYERS} has {len(got)} rows, the report {len(expected)} layers")
    problems = [
        f"{column} of {row['name']} is {other.get(column, '')!r}, in the report {row.get(column, '')!r}"
        for row, other in zip(expected, got, strict=True)
        for column in row.keys() | other.keys()
        if row.get(column, "") != other.get(column, "")
    ]
    refuse(LAYERS, sorted(problems))
    return f"{len(got)} layers as in the report"


def check_page(bundle: Bundle) -> str:
    """Say that report.html shows the report: drawn again, it is the same, but for the drawing library within.

    Raises:
        InputError: It differs.
        NotCheckedError: There is none, or another prunec drew it, so that it can't be compared.
    """
    if REPORT_PAGE not in bundle.manifest.files:
        raise NotCheckedError("the bundle has none")
    page, expected = _text(bundle, REPORT_PAGE), render_html(bundle.report)
    if page == expected:
        return "it shows the report"
    (own, library), (own_expected, _) = map(_split, (page, expected))
    versions = bundle.manifest.versions
    if own == own_expected and versions.get("plotly") != tool_version("plotly"):
        plotly = versions.get("plotly")
        raise NotCheckedError(
            f"it shows the report; its drawing library, {len(library)} bytes of plotly {plotly}, isn't here"
        )
    if versions.get("prunec") != tool_version("prunec"):
        raise NotCheckedError("not compared: another version of prunec drew it")
    raise InputError(f"{REPORT_PAGE} doesn't show what {REPORT} holds")


def _split(page: str) -> tuple[tuple[str, str], str]:
    """What stands before and behind the first script of a page, which is the drawing library, and that script."""
    before, _, rest = page.partition("<script>")
    library, _, after = rest.partition("</script>")
    return (before, after), library


def _text(bundle: Bundle, name: str) -> str:
    """The text of one of a bundle's files.

    Raises:
        InputError: It can't be read, or is no text.
    """
    try:
        return (bundle.folder / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name} can't be read: {error}") from error
