"""The intermediate representation: an ATen graph with its parameters under the network's own names."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule
from torch.utils import _pytree as pytree

from prunec.passes import cost
from prunec.passes.canonical import make_views_reshapes
from prunec.passes.dimensions import DynamicDims, batch_size, input_tensors, specification
from prunec.passes.errors import InputError, first_line
from prunec.passes.graphs import arguments, calls, operator_name, set_argument
from prunec.passes.training import switch

_EXTRA_FILE = "prunec.json"


@dataclass(eq=False)
class Program:
    """A captured network: what every pass takes and gives.

    Attributes:
        module: the graph and its tensors; calling it runs the network.
        example_args: positional inputs it was captured with, batch 2 where the batch is dynamic.
        example_kwargs: keyword inputs likewise.
        dynamic_shapes: which dimensions of each example tensor may vary; None where none may.
        origin: sha256 over name, dtype, shape and bytes of every tensor of the dense checkpoint.
        masks: parameter name -> bool tensor of its shape, True where the weight is kept.
        lost_in_capture: what the network does in training that this graph doesn't.
        dropped: parameters of the network that its inference doesn't use, left out of the program.
        constants: names of tensors that stand in the network's code and are neither parameters nor buffers of it.
    """

    module: GraphModule
    example_args: tuple[Any, ...]
    example_kwargs: dict[str, Any] = field(default_factory=dict)
    dynamic_shapes: DynamicDims | None = None
    origin: str = ""
    masks: dict[str, Tensor] = field(default_factory=dict)
    lost_in_capture: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    training: bool = False

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
    def batch_is_dynamic(self) -> bool:
        """Whether the network runs at any batch size."""
        return any(0 in dims for dims in self.dynamic_shapes or ())

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

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by their names in the original module; a tied tensor under each of its names."""
        return {**self.parameters(), **self.buffers()}

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trained tensors by their names in the original module."""
        return dict(self.module.named_parameters(remove_duplicate=False))

    def buffers(self) -> dict[str, Tensor]:
        """Tensors that aren't trained, by their names in the original module."""
        return dict(self.module.named_buffers(remove_duplicate=False))

    def parameter_count(self) -> int:
        """Number of trained scalars; a tied tensor counts once."""
        return sum(p.numel() for p in self.module.parameters())

    def layers(self) -> list[cost.Layer]:
        """Convolutions and linear layers in the order of execution."""
        return cost.layers(self.graph, self._samples)

    def macs(self) -> int:
        """Multiply-accumulates of convolutions and linear layers for one sample (`cost.CONVENTION`)."""
        return sum(layer.macs for layer in self.layers())

    def attention_macs(self) -> int:
        """Multiply-accumulates of products of two activations for one sample."""
        return cost.product_macs(self.graph) // self._samples

    @property
    def _samples(self) -> int:
        """Samples that the graph's shapes stand for: 1, or the batch where it is fixed."""
        return 1 if self.batch_is_dynamic else batch_size(self.example_inputs)

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Multiply the masks into their parameters, in place: after each optimizer step."""
        parameters = self.parameters() if self.masks else {}
        for name, mask in self.masks.items():
            parameters[name].mul_(mask)

    def with_tensors(self, tensors: Mapping[str, Tensor], graph: Graph | None = None) -> "Program":
        """A program with other tensors under the same names.

        Args:
            tensors: parameters and buffers by name.
            graph: taken over by the new program; a copy of this program's by default.
        """
        module = GraphModule(dict(tensors), graph or copied_graph(self.graph))
        return replace(self, module=module, masks=dict(self.masks))

    def clone(self) -> "Program":
        """A copy that shares nothing with this program; ties between tensors are kept."""
        clone = self.with_tensors(copied(self.tensors()))
        clone.masks = {name: mask.clone() for name, mask in self.masks.items()}
        clone.example_args, clone.example_kwargs = copied_inputs((self.example_args, self.example_kwargs))
        return clone

    def double(self) -> "Program":
        """A float64 copy, with its example inputs and casts: what exact comparisons run on."""
        clone = self.clone()
        clone.module.double()
        widen_casts(clone.graph)
        clone.module.recompile()
        clone.example_args, clone.example_kwargs = doubled((clone.example_args, clone.example_kwargs))
        return clone

    def export(self) -> torch.export.ExportedProgram:
        """The inference form, exported anew: what is saved and what the ONNX exporter takes.

        The tensors are this program's own, not copies; the dynamic dimension 0 is named "batch".
        """
        inference = self if not self.training else self.with_tensors(self.tensors()).eval()
        args, kwargs = self.example_args, self.example_kwargs
        shapes = self.dynamic_shapes and specification(inference.module, args, kwargs, self.dynamic_shapes)
        with torch.no_grad():
            exported = torch.export.export(inference.module, args, kwargs, dynamic_shapes=shapes, strict=False)
        strip_traces(exported)
        # Tracing chose views by the strides of this machine's kernels; decompositions and other devices have others.
        make_views_reshapes(exported.graph)
        return exported

    def save(self, path: str | Path) -> None:
        """Write the program with its masks as a ``.pt2`` archive."""
        masks = {
            name: {"shape": list(mask.shape), "bits": np.packbits(mask.cpu().numpy()).tobytes().hex()}
            for name, mask in self.masks.items()
        }
        note = {
            "origin": self.origin,
            "masks": masks,
            "lost_in_capture": self.lost_in_capture,
            "dropped": self.dropped,
            "constants": self.constants,
        }
        # Through a buffer: torch writes the file's own name into the archive, and equal programs shall be equal bytes.
        buffer = io.BytesIO()
        torch.export.save(self.export(), buffer, extra_files={_EXTRA_FILE: json.dumps(note)})
        Path(path).write_bytes(buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "Program":
        """Read a ``.pt2`` archive, prunec's own or a foreign one.

        Loading such an archive can run code that its author put there: load only what you trust.

        Raises:
            InputError: the file is not a readable ``.pt2`` archive.
        """
        from prunec.passes.frontend import from_exported

        extra = {_EXTRA_FILE: ""}
        try:
            exported = torch.export.load(str(path), extra_files=extra)
        except Exception as error:
            raise InputError(
                f"{path} can't be read as a .pt2 archive of torch.export: {first_line(error)}",
                hint="It may be truncated or corrupt, or written by another version of PyTorch.",
            ) from error
        program = from_exported(exported)
        if extra[_EXTRA_FILE]:
            note = json.loads(extra[_EXTRA_FILE])
            program.origin = note["origin"]
            program.lost_in_capture = tuple(note["lost_in_capture"])
            program.dropped = tuple(note["dropped"])
            program.constants = tuple(note["constants"])
            program.masks = {name: _unpack(mask) for name, mask in note["masks"].items()}
        return program


def _unpack(mask: Mapping[str, Any]) -> Tensor:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(mask["bits"]), np.uint8))
    count = int(np.prod(mask["shape"]))
    return torch.from_numpy(bits[:count].astype(bool).reshape(mask["shape"]))


def copied_graph(graph: Graph) -> Graph:
    """A copy of a graph with the same node names, metadata and calling convention."""
    clone = Graph()
    clone.set_codegen(graph._codegen)
    outputs = clone.graph_copy(graph, {})
    output = clone.output(outputs)
    output.meta = dict(graph.output_node().meta)
    return clone


def copied_inputs(inputs: Any, device: torch.device | None = None) -> Any:
    """The same structure with copies of its tensors, on a device."""
    return pytree.tree_map(
        lambda leaf: leaf.detach().to(device or leaf.device, copy=True) if isinstance(leaf, Tensor) else leaf, inputs
    )


def doubled(inputs: Any) -> Any:
    """The same structure with float64 copies of its floating-point tensors and copies of the others."""
    return pytree.tree_map(
        lambda leaf: leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf,
        copied_inputs(inputs),
    )


def widen_casts(graph: Graph) -> None:
    """Make every cast to, and every new tensor of, a floating-point type one of float64, in place."""
    for node in calls(graph):
        if not isinstance(node.target, torch._ops.OpOverload) or operator_name(node.target) == "view":
            continue
        bound = arguments(node)
        given = bound.get("dtype")
        is_new = "dtype" in bound and not any(source.meta.get("dtype") for source in node.all_input_nodes)
        dtype = given or (node.meta.get("dtype") if is_new else None)
        if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
            set_argument(node, "dtype", torch.float64)


def copied(tensors: Mapping[str, Tensor], device: torch.device | None = None) -> dict[str, Tensor]:
    """Copies of tensors by name, on a device: parameters stay parameters, names of one tensor names of one tensor."""
    copies: dict[int, Tensor] = {}
    for tensor in tensors.values():
        if id(tensor) not in copies:
            value = tensor.detach().to(device or tensor.device, copy=True)
            is_parameter = isinstance(tensor, nn.Parameter)
            copies[id(tensor)] = nn.Parameter(value, tensor.requires_grad) if is_parameter else value
    return {name: copies[id(tensor)] for name, tensor in tensors.items()}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over name, dtype, shape and bytes of every tensor, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def strip_traces(exported: torch.export.ExportedProgram) -> None:
    """Remove stack traces and source paths from an exported program's metadata."""
    for module in exported.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                for key in ("stack_trace", "from_node", "source_fn_stack", "torch_fn"):
                    node.meta.pop(key, None)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """The module in eval mode for a while; each submodule gets its own mode back."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode
