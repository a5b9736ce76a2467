"""The intermediate representation: an ATen graph with its parameters under the network's own names."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import load_pt2
from torch.fx import Graph, GraphModule
from torch.utils import _pytree as pytree

import prunec.passes.own_operators  # noqa: F401 - archives of quantized programs name its operators
from prunec.passes import cost, meta_kernels
from prunec.passes.boundary import shortened
from prunec.passes.dimensions import (
    DynamicDims,
    batch_size,
    described_inputs,
    dynamic_dims,
    input_tensors,
    named_dims,
    specification,
)
from prunec.passes.errors import PrunecError, UnsupportedModelError
from prunec.passes.exported import read_exported
from prunec.passes.graphs import arguments, calls, copied_graph, notes, operator_name, set_argument
from prunec.passes.network_inputs import NetworkInput
from prunec.passes.normalise import make_views_reshapes
from prunec.passes.outputs import OutputForm, plain_outputs, take_form
from prunec.passes.patterns.pattern import TWO_FOUR, Pattern
from prunec.passes.pt2_archive import check_plain, unreadable
from prunec.passes.pt2_devices import on_cpu
from prunec.passes.pt2_note import LISTS, read_inputs, read_masks, read_patterns, write_note
from prunec.passes.tensors import Inputs, copied, copied_inputs, fingerprint, in_type, named_tensors
from prunec.passes.torch_export import without_lines
from prunec.passes.training import switch

_EXTRA_FILE = "prunec.json"
meta_kernels.register()


@dataclass(eq=False)
class Program:
    """A captured network, which every pass takes and gives back.

    Attributes:
        module: The graph and its tensors; calling it runs the network.
        example_args: Positional inputs that it was captured with, of batch 2 where the batch is dynamic.
        example_kwargs: Keyword inputs that it was captured with.
        dynamic_shapes: Dimensions of each example tensor that may vary; None where none may.
        origin: SHA-256 over name, dtype, shape and bytes of every tensor of the checkpoint that it was read from,
            whether its outputs depend on it or not (`prunec.passes.identity.weights_sha256` leaves those out); empty
            where it was captured from a module.
        masks: Bool tensor by parameter name, of the parameter's shape, True where the weight is kept.
        patterns: Name of the pattern that a mask was made by, by parameter name, where that isn't 2:4.
        lost_in_capture: Operators that the network runs in training and this graph doesn't.
        capture_notes: Sentences on what fixes or bounds the batch, and what else capture had to do; since they name
            files, they are kept in memory only.
        dropped: Parameters of the network that its inference doesn't use, left out of the program.
        constants: Names of tensors that stand in the network's code and are neither parameters nor buffers of it.
        rewritten_by: Passes that gave its graph another form than the network's own code has, in order.
        training: Whether batch norm and dropout are in their training form.
        inputs: The description of each example tensor, in order.
    """

    module: GraphModule
    example_args: tuple[Any, ...]
    example_kwargs: dict[str, Any] = field(default_factory=dict)
    dynamic_shapes: DynamicDims | None = None
    origin: str = ""
    masks: dict[str, Tensor] = field(default_factory=dict)
    patterns: dict[str, str] = field(default_factory=dict)
    lost_in_capture: tuple[str, ...] = ()
    capture_notes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    rewritten_by: tuple[str, ...] = ()
    training: bool = False
    inputs: tuple[NetworkInput, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network; outputs have the structure of the original module's."""
        return self.module(*args, **kwargs)

    @property
    def graph(self) -> Graph:
        """The ATen graph."""
        return self.module.graph

    @property
    def example_inputs(self) -> tuple[Tensor, ...]:
        """The example input tensors in order, positional ones first."""
        return tuple(input_tensors((self.example_args, self.example_kwargs)))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the computed outputs in ONNX files."""
        return OutputForm.of(self.graph).names([each.name for each in self.inputs])

    @property
    def batch_is_dynamic(self) -> bool:
        """Whether the network runs at any batch size."""
        return any(0 in dims for dims in self.dynamic_shapes or ())

    @property
    def batch_bounds(self) -> tuple[int, int | None]:
        """The least and the most samples that a varying batch may have; None where there is no most."""
        dim = next((dims[0] for dims in self.dynamic_shapes or () if 0 in dims), None)
        least, most = getattr(dim, "min", None) or 1, getattr(dim, "max", None)
        return int(least), None if most is None or not most < 2**62 else int(most)

    def train(self) -> Self:
        """Switch batch norm and dropout to their training form, in place."""
        return self._switch(True)

    def eval(self) -> Self:
        """Switch batch norm and dropout to their inference form, in place."""
        return self._switch(False)

    def _switch(self, training: bool) -> Self:
        if training != self.training:
            switch(self.graph, training)
            self.module.recompile()
            self.training = training
        return self

    def inference(self) -> "Program":
        """This program where it is in its inference form, else its inference form over the same tensors."""
        return self if not self.training else self.with_tensors(self.tensors()).eval()

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by their names in the original module; a tied tensor under each of its names."""
        return named_tensors(self.module)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trained tensors by their names in the original module."""
        return dict(self.module.named_parameters(remove_duplicate=False))

    def buffers(self) -> dict[str, Tensor]:
        """Tensors that aren't trained, by their names in the original module."""
        return dict(self.module.named_buffers(remove_duplicate=False))

    def parameter_count(self) -> int:
        """Number of trained scalars; a tied tensor counts once."""
        return sum(p.numel() for p in self.module.parameters())

    def zero_fraction(self) -> float:
        """Share of zeros among the trained scalars."""
        zeros = sum(int((parameter == 0).sum()) for parameter in self.module.parameters())
        return zeros / max(self.parameter_count(), 1)

    def layers(self) -> list[cost.Layer]:
        """Convolutions and linear layers in the order of execution."""
        return cost.layers(self.graph, self.samples_of_shapes)

    def macs(self) -> int:
        """Multiply-accumulates of convolutions and linear layers for one sample (`cost.CONVENTION`)."""
        return sum(layer.macs for layer in self.layers())

    def attention_macs(self) -> int:
        """Multiply-accumulates of products of two activations for one sample."""
        return cost.product_macs(self.graph) // self.samples_of_shapes

    @property
    def samples_of_shapes(self) -> int:
        """Number of samples that the graph's shapes stand for: 1, or the batch where it is fixed."""
        return 1 if self.batch_is_dynamic else batch_size(self.example_inputs)

    def pattern_of(self, parameter: str) -> Pattern:
        """The pattern that a parameter's mask was made by."""
        return Pattern.parse(self.patterns.get(parameter, TWO_FOUR))

    def masked_to(self, pattern: str) -> frozenset[str]:
        """Names of the parameters with a mask of a pattern, by its name."""
        return frozenset(name for name in self.masks if self.patterns.get(name, TWO_FOUR) == pattern)

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Multiply the masks into their parameters, in place: after each optimizer step."""
        parameters = self.parameters() if self.masks else {}
        for name, mask in self.masks.items():
            parameters[name].mul_(mask)

    def with_tensors(self, tensors: Mapping[str, Tensor], graph: Graph | None = None) -> "Program":
        """A program with other tensors under the same names, over a given graph or else a copy of this program's."""
        module = GraphModule(dict(tensors), graph or copied_graph(self.graph))
        return replace(self, module=module, masks=dict(self.masks), patterns=dict(self.patterns))

    def clone(self) -> "Program":
        """A copy that shares nothing with this program; ties between tensors are kept."""
        clone = self.with_tensors(copied(self.tensors()))
        clone.masks = {name: mask.clone() for name, mask in self.masks.items()}
        clone.example_args, clone.example_kwargs = copied_inputs((self.example_args, self.example_kwargs))
        return clone

    def double(self) -> "Program":
        """A copy in float64, example inputs and casts included, on which exact comparisons run."""
        return self._in(torch.float64)

    def single(self) -> "Program":
        """A copy in float32, example inputs and casts included; the program itself if its parameters are in it."""
        types = {tensor.dtype for tensor in self.parameters().values() if tensor.is_floating_point()}
        return self._in(torch.float32) if types - {torch.float32} else self

    def _in(self, dtype: torch.dtype) -> "Program":
        clone = self.clone()
        clone.module.to(dtype)
        for node in clone.graph.nodes:
            old = node.meta.get("dtype")
            if old is not None and old.is_floating_point:
                node.meta["dtype"] = dtype
        retype_casts(clone.graph, dtype)
        clone.module.recompile()
        clone.example_args, clone.example_kwargs = in_type((clone.example_args, clone.example_kwargs), dtype)
        name = str(dtype).removeprefix("torch.")
        clone.inputs = tuple(each if each.is_whole else replace(each, dtype=name) for each in clone.inputs)
        return clone

    def export(self) -> ExportedProgram:
        """Export the inference form anew, for files and for the ONNX exporter.

        The tensors are this program's own, not copies; the dynamic dimension 0 is named "batch". Outputs are those
        that the network computes, in tuples, lists and dicts; `OutputForm` has their own structure.
        """
        inference, graph = self.inference(), copied_graph(self.inference().graph)
        plain_outputs(graph)
        module = inference.with_tensors(inference.tensors(), graph).module
        args, kwargs = self.example_args, self.example_kwargs
        shapes = self.dynamic_shapes and specification(module, args, kwargs, self.dynamic_shapes)
        with torch.no_grad(), without_lines():
            exported = torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
        strip_traces(exported)
        # Tracing chose views by the strides of this machine's kernels, which differ elsewhere.
        make_views_reshapes(exported.graph)
        return exported

    def save(self, path: str | Path, exported: ExportedProgram | None = None) -> None:
        """Write the program with its masks as a ``.pt2`` archive, in which nothing is pickled.

        torch.export pickles example inputs, so they stand in prunec's own part of it.

        Args:
            path: The file.
            exported: What `export` gave of this program as it is, where that is there already, and before the ONNX
                exporter got it, which changes it. It loses its example inputs.
        """
        inputs = self.example_args, self.example_kwargs
        described: dict[str, Any] = {"network_inputs": [each.to_json() for each in self.inputs]}
        described["outputs"] = OutputForm.of(self.graph).to_json()
        patterns = {name: self.patterns[name] for name in self.masks if name in self.patterns}
        described |= {"patterns": patterns} if patterns else {}
        note = write_note(self.masks, inputs, {name: getattr(self, name) for name in LISTS} | described)
        exported = self.export() if exported is None else exported
        exported.example_inputs = None
        # torch writes a file's own name into the archive; made in memory, archives of equal programs are equal.
        buffer = io.BytesIO()
        torch.export.save(exported, buffer, extra_files={_EXTRA_FILE: note})
        Path(path).write_bytes(buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path, *, trust: bool = False) -> "Program":
        """Read a ``.pt2`` archive, prunec's own or a foreign one.

        Args:
            path: The file.
            trust: Whether code that the archive's author put there may run. Without it an archive is read only if all
                of it is known to be plain data (`pt2_archive`).

        Raises:
            InputError: The file is not a readable ``.pt2`` archive, or isn't trusted and could run code.
            UnsupportedModelError: It holds no example inputs, or a name or a nested graph that prunec can't take.
        """
        if not trust:
            check_plain(Path(path))
        try:
            exported, text = _load_trusted(str(path)) if trust else _load_plain(str(path))
            note = json.loads(text) if text else {}
            program = from_exported(exported, read_inputs(note))
            program._take_note(note)
        except PrunecError:
            raise
        except Exception as error:
            raise unreadable(Path(path), error) from error
        return program

    def _take_note(self, note: Mapping[str, Any]) -> None:
        """Take over what `save` noted beside the graph."""
        self.masks, self.patterns = read_masks(note), read_patterns(note)
        parameters = self.parameters()
        for name, mask in self.masks.items():
            if name not in parameters or mask.shape != parameters[name].shape:
                raise ValueError(
                    f"it has a mask for {shortened(name)}, and no parameter of its shape {list(mask.shape)}"
                )
        self._take_description(note)
        for name in LISTS:  # foreign archives have none of it; the earliest archives of 0.1.0 don't list the constants
            names = note.get(name, ())
            if not isinstance(names, list | tuple) or not all(isinstance(entry, str) for entry in names):
                raise ValueError(f"{name} is no list of names")
            setattr(self, name, tuple(names))

    def _take_description(self, note: Mapping[str, Any]) -> None:
        """Take over what `save` noted of inputs and outputs; foreign archives and those of 0.1.0 have nothing of it."""
        if "network_inputs" in note:
            self.describe_inputs(tuple(map(NetworkInput.from_json, note["network_inputs"])))
        if "outputs" in note:
            take_form(self.graph, OutputForm.from_json(note["outputs"]))
            self.module.recompile()

    def describe_inputs(self, inputs: tuple[NetworkInput, ...]) -> None:
        """Take a description of the inputs in place of the one that was found when the network was exported.

        Raises:
            ValueError: It is one of other inputs.
        """
        for each, own, tensor in zip(inputs, self.inputs, self.example_inputs, strict=True):
            start = 1 if each.has_batch else 0
            if each.dtype != own.dtype or not each.fits(tuple(tensor.shape[start:])):
                raise ValueError(f"its input {own.words()} is described as {each.words()}")
            if each.varying.keys() != own.varying.keys():
                raise ValueError(f"the sizes of {own.words()} vary, which are described as {each.words()}")
        self.inputs, self.dynamic_shapes = inputs, named_dims(self.dynamic_shapes, inputs)


def _load_trusted(path: str) -> tuple[ExportedProgram, str]:
    """Read an archive of any age, and prunec's note in it."""
    extra = {_EXTRA_FILE: ""}
    return torch.export.load(on_cpu(path, trust=True), extra_files=extra), extra[_EXTRA_FILE]


def _load_plain(path: str) -> tuple[ExportedProgram, str]:
    """Read an archive that was checked, and prunec's note in it.

    `torch.export.load` would try again what fails as an archive of torch 2.7, unpickling members that weren't checked.
    """
    content = load_pt2(on_cpu(path, trust=False))
    return content.exported_programs["model"], content.extra_files.get(_EXTRA_FILE, "")


def program_from(exported: ExportedProgram, example: Inputs) -> Program:
    """A program that takes over a freshly exported network's tensors; its origin isn't set yet."""
    dims, inputs = dynamic_dims(exported), described_inputs(exported, input_tensors(example))
    module, dropped, constants = read_exported(exported)
    return Program(module, *example, dims, dropped=dropped, constants=constants, inputs=inputs)


def from_exported(exported: ExportedProgram, example: Inputs | None = None) -> Program:
    """A program from an ``ExportedProgram``, with the dimensions dynamic that were exported so.

    Args:
        exported: The exported network, whose tensors the program takes over.
        example: Its example inputs; by default those that it holds.

    Raises:
        UnsupportedModelError: There are no example inputs, or a name or a nested graph that prunec can't take.
    """
    example = example or exported.example_inputs
    if example is None:
        raise UnsupportedModelError(
            "The exported program holds no example inputs.", hint="Export it again with torch.export.export."
        )
    args, kwargs = example
    program = program_from(exported, (tuple(args), dict(kwargs)))
    program.origin = fingerprint(exported.state_dict)
    return program


def retype_casts(graph: Graph, dtype: torch.dtype) -> None:
    """Make every cast to a floating-point type, and every new tensor of one, of a type, in place; complex alike.

    Operators of fake quantisation take float32 only: they go on in it.
    """
    for node in calls(graph):
        if "fake_quantize" in operator_name(node.target) and dtype != torch.float32:
            node.target = _in_float32(node.target)
        elif isinstance(node.target, torch._ops.OpOverload) and operator_name(node.target) != "view":
            bound = arguments(node)
            is_new = "dtype" in bound and not any(source.meta.get("dtype") for source in node.all_input_nodes)
            old = bound.get("dtype") or (node.meta.get("dtype") if is_new else None)
            if isinstance(old, torch.dtype) and (old.is_floating_point or old.is_complex):
                set_argument(node, "dtype", dtype.to_complex() if old.is_complex else dtype)


def _in_float32(operator: Any) -> Callable[..., Any]:
    """An operator on float32 copies of float64 tensors; what it yields is float64 again."""

    def cast(value: Any, old: torch.dtype, new: torch.dtype) -> Any:
        return pytree.tree_map_only(Tensor, lambda leaf: leaf.to(new) if leaf.dtype == old else leaf, value)

    def in_float32(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = cast((args, kwargs), torch.float64, torch.float32)
        return cast(operator(*args, **kwargs), torch.float32, torch.float64)

    return in_float32


def strip_traces(exported: ExportedProgram) -> None:
    """Remove stack traces, source paths and what torch noted for itself from an exported program's metadata."""
    for module in exported.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                for key in ("stack_trace", "from_node", "source_fn_stack", "torch_fn"):
                    node.meta.pop(key, None)
                node.meta["custom"] = notes(node)
