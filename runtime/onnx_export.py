"""Export a program to ONNX: one file, dynamic batch, equal bytes for equal weights."""

import contextlib
import hashlib
import io
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph

from prunec.passes.errors import UnsupportedModelError, first_line
from prunec.passes.graphs import arguments, calls, operator_name
from prunec.passes.program import Program
from prunec.passes.quantization.quantizers import fold_clips, with_weights_computed
from prunec.passes.silence import without_logging
from prunec.passes.torch_export import without_lines
from prunec.runtime import children
from prunec.runtime.onnx_files import check_onnx, save_onnx, strip_metadata
from prunec.runtime.onnx_quantizers import TRANSLATIONS, opset_of, store_numbers
from prunec.runtime.onnx_signature import Signature, name_values, write_signature

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
#: Largest magnitude that the optimizer of onnxscript takes for zero where it is added.
_TAKEN_FOR_ZERO = 1e-8


def save_with_onnx(program: Program, model: Path, onnx_file: Path) -> None:
    """Write the inference form of a program as a ``.pt2`` archive and as float32 ONNX, traced once for both.

    For errors see `export_onnx`; the archive is there where they are raised.
    """
    exported = program.export()
    program.save(model, exported)
    export_onnx(program, onnx_file, exported)


def export_onnx(program: Program, path: Path, exported: ExportedProgram | None = None) -> None:
    """Write the inference form of a program as float32 ONNX.

    Batch norms are folded into convolutions; weights keep the names of the parameters they come from, also where the
    exporter transposed them. Inputs have their names, and outputs those of `OutputForm.names`; dynamic dimensions have
    the names of the program's inputs, the batch is "batch". What else is known of inputs and outputs stands in the
    file's metadata (`onnx_signature`). Weights above 2 GB go beside the file, into ``<name>.data``.

    Args:
        program: The program.
        path: The file.
        exported: What `Program.export` gave of it, where that is there already; it is taken where it serves, and may
            be changed.

    Raises:
        UnsupportedModelError: An operator has no ONNX form, or the exporter of torch writes no valid one.
        NativeCrashError: The ONNX checker dies of the file, which is there.
    """
    computed = with_weights_computed(program)
    if exported is None or not _same_graph(program, computed):
        exported = computed.export()
    _refuse_projections(exported.graph)
    try:
        with _quiet(), without_lines():
            result = torch.onnx.export(
                _prepared(exported),
                dynamo=True,
                verbose=False,
                opset_version=opset_of(program),
                custom_translation_table=TRANSLATIONS,
            )
            assert result is not None
            model: onnx.ModelProto = result.model_proto
    except Exception as error:
        raise UnsupportedModelError(
            f"The network can't be exported to ONNX: {_root_cause(error)}",
            hint="The operator named here has no ONNX form in this version of torch.",
        ) from error
    store_numbers(model)
    _name_weights(model.graph, program)
    name_values(model.graph, program)
    strip_metadata(model)
    write_signature(model, Signature.of(program))
    save_onnx(model, path)
    try:
        children.call(f"the ONNX checker read {path.name}", check_onnx, path.absolute())
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UnsupportedModelError(
            f"The exporter of torch wrote no valid ONNX of the network: {first_line(error)}",
            hint="The operator named here has no right ONNX form in this version of torch.",
        ) from error


def _same_graph(program: Program, computed: Program) -> bool:
    """Whether a program and its form with weights computed have the same graph once they are exported.

    Torch leaves tensors out that nothing reads, unless they share their memory with others, which may get their names.
    """
    before, after = program.tensors(), computed.tensors()
    dropped = {before[name].untyped_storage().data_ptr() for name in before.keys() - after.keys()}
    return (
        after.keys() <= before.keys()
        and dropped.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in after.values())
        and len(list(calls(program.graph))) == len(list(calls(computed.graph)))
    )


def _refuse_projections(graph: Graph) -> None:
    """Refuse LSTMs with projections, which ONNX doesn't have and the exporter of torch takes for others."""
    for node in calls(graph, "lstm"):
        _, hidden, cell = node.meta["val"]
        if hidden.shape[-1] != cell.shape[-1]:
            raise UnsupportedModelError(
                f"The network can't be exported to ONNX: an LSTM with projections (proj_size={hidden.shape[-1]}).",
                hint="ONNX has no LSTM with projections; a linear layer after the LSTM is the nearest thing.",
            )


def _prepared(exported: ExportedProgram) -> ExportedProgram:
    """A program that computes the same and that the exporter of torch takes; it may be the given one, changed."""
    attention = calls(exported.graph, "scaled_dot_product_attention")
    if any(len(arguments(node)["query"].meta["val"].shape) != 4 for node in attention):
        exported = exported.run_decompositions({_ATTENTION: _attention_of_rank_4})
    names, stored = exported.graph_signature.inputs_to_buffers, exported.state_dict
    fold_clips(exported.graph, {read: stored[name] for read, name in names.items() if name in stored})
    _copy_before_reshapes(exported.graph)
    _keep_small_numbers(exported.graph)
    _cast_before_subtraction(exported.graph)
    return exported


def _cast_before_subtraction(graph: Graph) -> None:
    """Cast whole numbers that are taken from a number with a fraction, which the exporter can't."""
    for node in list(calls(graph, "rsub")):
        source, dtype = arguments(node)["self"], node.meta["val"].dtype
        if source.meta["val"].dtype != dtype:
            with graph.inserting_before(node):
                cast = graph.call_function(torch.ops.aten._to_copy.default, (source,), {"dtype": dtype})
            cast.meta = {"val": source.meta["val"].to(dtype)}
            node.replace_input_with(source, cast)


def _keep_small_numbers(graph: Graph) -> None:
    """Give small numbers as tensors: the exporter's optimizer takes ``x + 1e-15`` for ``x``, and 0 / 1e-15 gets NaN."""
    for node in list(calls(graph, "add", "sub")):
        number, sum_ = arguments(node)["other"], node.meta["val"]
        if isinstance(number, float) and 0 < abs(number) <= _TAKEN_FOR_ZERO and sum_.is_floating_point() and sum_.ndim:
            with graph.inserting_before(node):
                kept = graph.call_function(torch.ops.aten.full.default, ([1], number), {"dtype": sum_.dtype})
            kept.meta = {"val": sum_.new_full((1,), number)}
            node.target = getattr(torch.ops.aten, operator_name(node.target)).Tensor
            node.args = (node.args[0], kept, *node.args[2:])


def _copy_before_reshapes(graph: Graph) -> None:
    """Make memory dense before every reshape; the copies leave no trace in ONNX.

    The exporter decomposes and traces the graph, where reshapes become views that fit the strides of that moment,
    and then runs it another way, where kernels of attention leave other strides.
    """
    for node in list(calls(graph, "view", "_unsafe_view", "reshape")):
        source = arguments(node)["self"]
        with graph.inserting_before(node):
            layout = {"memory_format": torch.contiguous_format}
            dense = graph.call_function(torch.ops.aten.clone.default, (source,), {**layout})
        dense.meta = {"val": source.meta["val"].clone(**layout)}
        node.replace_input_with(source, dense)
    graph.lint()


def _attention_of_rank_4(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *a: Any, **k: Any
) -> Any:
    """Attention over (batch, heads, tokens, head_dim): leading axes are merged, missing ones added."""
    if query.ndim == 4:
        return NotImplemented
    tensors = [query, key, value] + ([] if attn_mask is None else [attn_mask])
    leading = torch.broadcast_shapes(*(tensor.shape[:-3] for tensor in tensors))  # type: ignore[no-untyped-call]

    def merged(tensor: Tensor) -> Tensor:
        while tensor.ndim < 3:
            tensor = tensor[None]
        return tensor.expand(*leading, *tensor.shape[-3:]).reshape(math.prod(leading), *tensor.shape[-3:])

    if attn_mask is not None:
        attn_mask = merged(attn_mask)
    result = _ATTENTION(merged(query), merged(key), merged(value), attn_mask, *a, **k)
    return result.reshape(*leading, *query.shape[-3:-1], value.shape[-1])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter from the user's terminal; errors are raised anyway."""
    with without_logging(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _name_weights(graph: onnx.GraphProto, program: Program) -> None:
    """Give matrices that lost their parameter's name that name back; their values tell which it was.

    The exporter stores the weight of a linear layer on more than two axes transposed, as "val_7", and a tied one under
    any of its names.
    """
    parameters = program.parameters()
    weights = dict.fromkeys(layer.weight for layer in program.layers() if layer.weight in parameters)
    present = {tensor.name for tensor in graph.initializer}
    lost: dict[tuple[tuple[int, ...], bytes], list[str]] = {}
    for name in weights:
        weight = parameters[name].detach()
        if weight.ndim == 2 and name not in present:
            for matrix in (weight, weight.t()):
                lost.setdefault(_fingerprint(matrix.contiguous().numpy()), []).append(name)
    renamed: dict[str, str] = {}
    for tensor in graph.initializer if lost else ():
        if tensor.name in weights or len(tensor.dims) != 2 or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        names = lost.get(_fingerprint(onnx.numpy_helper.to_array(tensor)), [])
        if free := [name for name in names if name not in renamed.values()]:
            renamed[tensor.name] = free[0]
            tensor.name = free[0]
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)


def _fingerprint(matrix: NDArray[Any]) -> tuple[tuple[int, ...], bytes]:
    return matrix.shape, hashlib.sha256(matrix.tobytes()).digest()
