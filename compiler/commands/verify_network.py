"""Claims of a report on the network: held against the compiled program, the plan and the ONNX file."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fractions import Fraction

from torch import Tensor

from prunec.compiler.bundle.bundle_names import MODEL_ONNX, PLAN
from prunec.compiler.bundle.bundle_reader import Bundle, bundle_onnx
from prunec.compiler.commands.verify_claims import Claim, is_own, is_this_version, pipeline_of, rule
from prunec.compiler.report.network_parts import LayerPart, PruningGroupPart, input_parts
from prunec.compiler.report.report import Report
from prunec.passes.cost import CONVENTION, Layer, layer_name
from prunec.passes.errors import InputError
from prunec.passes.factorizing import kept_in_factors
from prunec.passes.fold import FoldParameters
from prunec.passes.identity import weights_sha256
from prunec.passes.operators import WEIGHTED
from prunec.passes.patterns.eligibility import eligibility
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.quantization.quantizers import is_quantized
from prunec.passes.unknown import Unknown, known
from prunec.runtime.onnx_sparsity import LayerSparsity, check_sparsity

#: Stands where only the dense checkpoint tells a figure.
NOT_CHECKED = Unknown("only the dense checkpoint tells it.")
KeptByDim = Mapping[int, Sequence[int]]


def network_claims(bundle: Bundle, program: Program) -> Iterator[Claim]:
    """The claims that follow from a bundle's files."""
    yield from _compiled_claims(bundle, program)
    yield from _branch_claims(bundle)
    yield from _rank_claims(bundle)
    yield from _layer_claims(bundle, program)
    yield from _dense_claims(bundle, program)


def unique_layers(program: Program) -> list[Layer]:
    """The layers of a program, each weight once, in the order of a report's rows."""
    return list({layer.weight: layer for layer in program.layers()}.values())


def names_in_program(
    names: Collection[str], program: Program, fits: Callable[[str, Tensor], bool]
) -> dict[str, str | None]:
    """The name that each of some tensors has in a program that was read from model.pt2; None where it isn't there.

    Those that a quantized program lacks are left out: their norms were folded into the layers before. Of a tied tensor
    such a program has one of its names: then it is that of the first tensor which fits.
    """
    tensors = program.tensors()
    if is_quantized(program.graph):
        return {name: name for name in names if name in tensors}
    return {
        name: name if name in tensors else next((other for other in tensors if fits(name, tensors[other])), None)
        for name in names
    }


def is_cut(dims: KeptByDim, tensor: Tensor) -> bool:
    """Whether a tensor has as many slices as are kept, by dimension."""
    return all(0 <= d < tensor.ndim and len(indices) == tensor.shape[d] for d, indices in dims.items())


def kept_of(plan: PruningPlan, program: Program) -> tuple[dict[str, str | None], dict[str, KeptByDim]]:
    """The names that a plan's tensors have in a program, and what is kept of each of the program's own by its name."""
    kept = kept_in_factors(plan, program)
    names = names_in_program(kept, program, lambda name, tensor: is_cut(kept[name], tensor))
    present = ((name, to) for name, to in names.items() if to is not None and (name == to or to not in names))
    return names, {to: kept[name] for name, to in present}


def _compiled_claims(bundle: Bundle, program: Program) -> Iterator[Claim]:
    """What the compiled program and the sizes of files tell."""
    report, entries, parameters = bundle.report, bundle.manifest.files, program.parameters()
    inputs = tuple(tuple(tensor.shape[1:]) for tensor in program.example_inputs)
    yield Claim("macs.compiled", report.macs.compiled, program.macs())
    yield Claim("parameters.compiled", report.parameters.compiled, program.parameter_count())
    yield Claim("parameters.zero_fraction", report.parameters.zero_fraction, program.zero_fraction())
    yield Claim("model.compiled_sha256", report.model.compiled_sha256, weights_sha256(program))
    yield Claim("model.input_shapes", report.model.input_shapes, inputs)
    yield Claim("model.inputs", report.model.inputs, input_parts(program.inputs))
    yield Claim("model.outputs", report.model.outputs, program.output_names)
    yield Claim("model.lost_in_capture", report.model.lost_in_capture, program.lost_in_capture)
    if "batch_is_dynamic" in report.model.model_fields_set:
        yield Claim("model.batch_is_dynamic", report.model.batch_is_dynamic, program.batch_is_dynamic)
    if is_this_version(report):
        yield Claim("macs.convention", report.macs.convention, CONVENTION)
    yield Claim("size_bytes.compiled_onnx", report.size_bytes.compiled_onnx, entries[MODEL_ONNX].bytes)
    if not isinstance(report.engine, Unknown) and report.engine.path in entries:
        entry = entries[report.engine.path]
        yield Claim("size_bytes.engine", report.size_bytes.engine, entry.bytes)
        yield Claim("engine.sha256", report.engine.sha256, entry.sha256)
    if steps := known(report.steps):
        counted = {layer.weight for layer in program.layers()} & parameters.keys()
        nonzero = sum(int(parameters[weight].count_nonzero()) for weight in counted)
        yield Claim(f"steps.{len(steps) - 1}.nonzero_weights", steps[-1].nonzero_weights, nonzero)


def _branch_claims(bundle: Bundle) -> Iterator[Claim]:
    """The branches that the plan removes are those that the report tells of, with their layers."""
    report, plan = bundle.report, PruningPlan.from_json(_plan_text(bundle))
    names = tuple(branch.name for branch in plan.removed_branches)
    if (pruning := known(report.pruning)) is not None:
        yield Claim("pruning.removed_branches", pruning.removed_branches, names)
    told = {row.name: row.removed_with for row in report.layers if row.removed_with is not None}
    gone = {layer_name(tensor): branch for tensor, branch in plan.gone.items()}
    yield rule("layers.*.removed_with are branches of the plan", set(told.values()) <= set(names))
    if not is_folded(report):
        expected = {row.name: gone[row.name] for row in report.layers if row.name in gone}
        yield Claim("layers, removed", told, expected)


def _rank_claims(bundle: Bundle) -> Iterator[Claim]:
    """The layers that the plan decomposes are those that the report tells of, each with the two in its place."""
    report, plan = bundle.report, PruningPlan.from_json(_plan_text(bundle))
    told = {row.name: row.rank for row in report.layers if row.rank is not None}
    yield Claim("layers.*.rank", told, {layer_name(weight): rank for weight, rank in plan.ranks.items()})
    pairs = sorted(row.factor_of for row in report.layers if row.factor_of is not None)
    yield Claim("layers.*.factor_of", pairs, sorted([*told, *told]))
    if (low_rank := known(report.low_rank)) is not None:
        yield Claim("low_rank.layers", {layer.layer: layer.rank for layer in low_rank.layers}, told)
        for layer in low_rank.layers:
            yield rule(f"low_rank.layers {layer.layer}: rank <= full_rank", 1 <= layer.rank <= layer.full_rank)


def is_folded(report: Report) -> bool:
    """Whether weights may have got other names, and one to what was computed twice, as a fold gives them."""
    pipeline = pipeline_of(report)
    return pipeline is None or bool(pipeline.of(FoldParameters))


def _layer_claims(bundle: Bundle, program: Program) -> Iterator[Claim]:
    """The rows of layers: shapes, filters kept, what can be 2:4, and the nodes of the ONNX file."""
    report, layers = bundle.report, unique_layers(program)
    rows, folded = report.compiled_layers, is_folded(report)
    computed = [(layer.operator, layer.shape) for layer in layers]
    told = [(row.operator, row.compiled_shape) for row in rows]
    if folded and len(rows) != len(layers):
        yield Claim("layers, shapes", sorted(set(told)), sorted(set(computed)))
        return
    yield Claim("layers, shapes", told, computed)
    uses, tensors = _uses(program), program.tensors()
    can_be = {entry.weight: entry for entry in eligibility(program)}
    nodes: dict[str, list[LayerSparsity]] = {}
    for node in check_sparsity(bundle_onnx(bundle.folder)):
        nodes.setdefault(node.layer, []).append(node)
    for row, layer in zip(rows, layers, strict=False):
        # Of a tied weight model.pt2 has one name, and of a computed one none.
        if not folded and layer.weight in tensors and uses[layer.weight] == 1:
            yield Claim(f"layer {row.name}: name", row.name, layer.name)
        yield Claim(f"layer {row.name}: kept", row.kept, layer.shape[0])
        dense_ms, sparse_ms = known(row.dense_ms), known(row.sparse_ms)
        if dense_ms is not None and sparse_ms:
            yield Claim(f"layer {row.name}: gain", row.gain, dense_ms / sparse_ms)
        if (sparsity := known(row.sparsity)) is not None:
            yield Claim(f"layer {row.name}: eligible", sparsity.eligible, can_be[layer.weight].eligible)
        if not folded:
            yield from _node_claims(report, row, can_be[layer.weight].reason, nodes.get(row.name, []))


def _uses(program: Program) -> dict[str, int]:
    """The number of operators that take a tensor, by its name."""
    uses: dict[str, int] = {}
    for node in program.graph.find_nodes(op="get_attr"):
        uses[str(node.target)] = uses.get(str(node.target), 0) + len(node.users)
    return uses


def _node_claims(report: Report, row: LayerPart, reason: str, nodes: Sequence[LayerSparsity]) -> Iterator[Claim]:
    """What the ONNX file tells of a layer."""
    if row.onnx_nodes:  # those of bundles from before they were told are empty
        yield Claim(f"layer {row.name}: onnx_nodes", row.onnx_nodes, tuple(node.name for node in nodes))
    sparsity = known(row.sparsity)
    if sparsity is None or not nodes:
        return
    node = nodes[-1]
    if is_this_version(report):
        yield Claim(f"layer {row.name}: reason", sparsity.reason, reason or ("" if node.valid else node.reason))
        yield Claim(f"layer {row.name}: likely_to_gain", sparsity.likely_to_gain, node.likely_to_gain)
        yield Claim(f"layer {row.name}: gain_rule", sparsity.gain_rule, node.gain_rule)


def _dense_claims(bundle: Bundle, program: Program) -> Iterator[Claim]:
    """Figures of the dense network that its layers' shapes and the plan decide."""
    report = bundle.report
    layers = unique_layers(program)
    is_whole = len(layers) == len(report.layers)  # but where branches were removed
    if not is_whole or not is_own(pipeline_of(report)):
        yield Claim("macs.dense", report.macs.dense, NOT_CHECKED)
        yield Claim("parameters.dense", report.parameters.dense, NOT_CHECKED)
        return
    rows = {layer.weight: row for row, layer in zip(report.layers, layers, strict=True)}
    yield Claim("macs.dense", report.macs.dense, _dense_macs(program, rows))
    if is_quantized(program.graph):  # of norms that were folded nothing is left to count
        weights = sum(math.prod(row.shape) for name, row in rows.items() if name in program.parameters())
        yield rule("parameters.dense >= weights of the dense layers", report.parameters.dense >= weights)
        yield Claim("parameters.dense", report.parameters.dense, NOT_CHECKED)
        return
    plan = PruningPlan.from_json(_plan_text(bundle))
    kept = kept_of(plan, program)[1]
    yield Claim("parameters.dense", report.parameters.dense, _dense_parameters(program, rows, kept))
    by_name = {row.name: row for row in report.layers}
    pruning = known(report.pruning)
    for group in () if pruning is None else pruning.groups:
        if group.name in by_name and group.width:
            yield from _group_claims(group, by_name[group.name])


def _plan_text(bundle: Bundle) -> str:
    try:
        return (bundle.folder / PLAN).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{PLAN} can't be read: {error}") from error


def _dense_macs(program: Program, rows: Mapping[str, LayerPart]) -> int | Unknown:
    """MACs of the layers with the dense weights: a layer is applied as often, whatever its channels."""
    total = Fraction(0)
    for call in program.layers():
        if not (size := math.prod(call.shape)):
            return NOT_CHECKED
        total += Fraction(call.macs * math.prod(rows[call.weight].shape), size)
    return int(total) if total.denominator == 1 else NOT_CHECKED


def _dense_parameters(program: Program, rows: Mapping[str, LayerPart], kept: Mapping[str, KeptByDim]) -> int | Unknown:
    """Parameters before the cuts of a plan; `NOT_CHECKED` where no layer, or several, tell the width of one of them.

    Tensors that are cut together keep the same channels, and the shape of a layer's weight tells how many there were.
    """
    widths: dict[tuple[int, ...], set[int]] = {}
    for weight, row in rows.items():
        for dim, indices in kept.get(weight, {}).items():
            widths.setdefault(tuple(indices), set()).add(row.shape[dim] if dim < len(row.shape) else 0)
    total = 0
    parameters = {id(parameter): (name, parameter) for name, parameter in program.parameters().items()}
    for name, parameter in parameters.values():
        shape = dict(enumerate(parameter.shape if name not in rows else rows[name].shape))
        for dim, indices in kept.get(name, {}).items() if name not in rows else ():
            before = widths.get(tuple(indices), set())
            if len(before) != 1:
                return NOT_CHECKED
            shape[dim] = next(iter(before))
        total += math.prod(shape.values())
    return total


def _group_claims(group: PruningGroupPart, row: LayerPart) -> Iterator[Claim]:
    """A group's units are filters of the layer that names it, one or more each; the layer may have others, too."""
    dim = WEIGHTED[row.operator].filter_dim if row.operator in WEIGHTED else 0
    dense, compiled = row.shape[dim], row.compiled_shape[dim]
    path = f"pruning.groups {group.name}"
    yield rule(f"{path}: width {group.width} <= {dense} filters", group.width <= dense)
    yield rule(f"{path}: not more are gone than filters", group.width - group.kept <= dense - compiled)
    if group.width == dense:
        yield Claim(f"{path}: kept", group.kept, compiled)
