"""The structure of a network's outputs: kept by programs, files and engines alike, whatever class the network gives.

In the process that captured a network its outputs are of its own classes. A file names their fields only: what is read
from it gives a `Record` for a class and a named tuple for a named tuple, and nothing that a file names is imported.
"""

import dataclasses
import functools
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

from prunec.passes.boundary import shortened
from prunec.passes.errors import UnsupportedModelError

#: Values beside the tensors that a file of a program can hold.
_PLAIN = (int, float, str, bool, type(None))


class Record(dict[str, Any]):
    """Outputs by the names of their fields, which are attributes too; a position gives one of those that are there."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getitem__(name)
        except KeyError:
            raise AttributeError(f"there is no output {name!r}, but {', '.join(self) or 'none'}") from None

    def __getitem__(self, key: Any) -> Any:
        """The output of a name, or of a position."""
        if isinstance(key, int | slice):
            return tuple(value for value in self.values() if value is not None)[key]
        return super().__getitem__(key)


pytree.register_pytree_node(
    Record,
    lambda record: (list(record.values()), tuple(record)),
    lambda values, names: Record(zip(names, values, strict=True)),
    serialized_type_name="prunec.Record",
)


@dataclass(frozen=True)
class Leaf:
    """An innermost part of the outputs: a tensor, a number that depends on sizes, or a constant, which has a value."""

    kind: Literal["tensor", "number", "constant"]
    value: Any = None

    @property
    def is_computed(self) -> bool:
        """Whether the network computes it."""
        return self.kind != "constant"


@dataclass(frozen=True)
class OutputForm:
    """The structure of a network's outputs.

    Attributes:
        spec: The containers, as torch's pytrees describe them.
        leaves: What lies in them, in order.
    """

    spec: pytree.TreeSpec
    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, graph: Graph) -> Self:
        """The form of the outputs of a program's graph."""
        codegen: Any = graph._codegen
        return cls(codegen.pytree_info.out_spec, tuple(map(_leaf, graph_outputs(graph))))

    @functools.cached_property
    def paths(self) -> tuple[str, ...]:
        """The path of each leaf: keys, fields and positions with dots between them; "" where it is all there is."""
        return tuple(".".join(path) for path in _paths(self.spec, ()))

    @property
    def computed_paths(self) -> tuple[str, ...]:
        """The paths of what the network computes."""
        return tuple(path for path, leaf in zip(self.paths, self.leaves, strict=True) if leaf.is_computed)

    def names(self, taken: Sequence[str] = ()) -> tuple[str, ...]:
        """A name for everything that is computed, unlike each other and the names that are taken.

        A path is one where it has a key or a field in it. Others are "output" where there is one, else "output_0" and
        so on.
        """
        paths, names = self.computed_paths, list[str]()
        for position, path in enumerate(paths):
            is_named = any(part and not part.isdigit() for part in path.split("."))
            name = path if is_named else "output" if len(paths) == 1 else f"output_{position}"
            while name in taken or name in names:
                name += "_"
            names.append(name)
        return tuple(names)

    def build(self, values: Sequence[Any]) -> Any:
        """Outputs in this form, of what is computed in its order."""
        left = iter(values)
        filled = [next(left) if leaf.is_computed else leaf.value for leaf in self.leaves]
        return pytree.tree_unflatten(filled, self.spec)

    def of_arrays(self, arrays: Sequence[Any]) -> Any:
        """Outputs in this form, of the arrays that an engine gives."""
        computed = [leaf for leaf in self.leaves if leaf.is_computed]
        tensors = [torch.from_numpy(array) for array in arrays]
        pairs = zip(tensors, computed, strict=True)
        return self.build([int(tensor) if leaf.kind == "number" else tensor for tensor, leaf in pairs])

    def plain(self) -> pytree.TreeSpec:
        """The containers of what is computed alone, as tuples, lists and dicts, which every reader of a file knows."""
        kept, _ = _plain(self.spec, iter(self.leaves))
        return pytree.tree_structure(kept)

    def check(self) -> None:
        """Refuse outputs that no file can hold.

        Raises:
            UnsupportedModelError: Nothing is computed, or a constant is no number, text, truth value or None.
        """
        if not self.computed_paths:
            raise UnsupportedModelError("The network computes no output: what it gives out depends on no input.")
        for path, leaf in zip(self.paths, self.leaves, strict=True):
            if not isinstance(leaf.value, _PLAIN):
                raise UnsupportedModelError(
                    f"The network's output {path!r} is a {type(leaf.value).__name__}, which no file can hold.",
                    hint="Name the outputs that are deployed: [model] outputs in prunec.toml.",
                )

    def to_json(self) -> Any:
        """Plain JSON values; for errors see `check`."""
        self.check()
        return _written(self.spec, iter(self.leaves))

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """The inverse of `to_json`, with classes as records.

        Raises:
            ValueError: It isn't of that form; nearly anything else has the same cause.
        """
        leaves: list[Leaf] = []
        return cls(pytree.tree_structure(_read(document, leaves)), tuple(leaves))


def graph_outputs(graph: Graph) -> Sequence[Any]:
    """What the output of a program's graph holds: nodes, and constants."""
    outputs = graph.output_node().args[0]
    return outputs if isinstance(outputs, Sequence) else (outputs,)


def set_outputs(graph: Graph, outputs: Sequence[Any], spec: pytree.TreeSpec) -> None:
    """Let a graph give other nodes or constants, in these containers, in place."""
    graph.output_node().args = (tuple(outputs),)
    codegen: Any = graph._codegen
    graph.set_codegen(type(codegen)(codegen.pytree_info._replace(out_spec=spec)))


def take_form(graph: Graph, form: OutputForm) -> None:
    """Let a graph whose outputs are computed, all of them, give them in a form, in place.

    Raises:
        ValueError: The form is one of more outputs, or of fewer.
    """
    nodes = list(graph_outputs(graph))
    if sum(leaf.is_computed for leaf in form.leaves) != len(nodes):
        raise ValueError("the form of its outputs is that of another network")
    left = iter(nodes)
    set_outputs(graph, [next(left) if leaf.is_computed else leaf.value for leaf in form.leaves], form.spec)


def plain_outputs(graph: Graph) -> None:
    """Let a graph give what it computes alone, in plain containers, in place; for errors see `OutputForm.check`."""
    form = OutputForm.of(graph)
    form.check()
    computed = [node for node in graph_outputs(graph) if isinstance(node, Node)]
    set_outputs(graph, computed, form.plain())


def know_classes(outputs: object) -> None:
    """Let torch look into the classes of a network's outputs that it doesn't know: dataclasses, and kinds of dicts.

    They are registered for this process, as their authors can do by ``torch.export.register_dataclass``.
    """
    for value in _values(outputs):
        kind = type(value)
        if kind in pytree.SUPPORTED_NODES or pytree.is_namedtuple_class(kind):
            continue
        if isinstance(value, Mapping):
            pytree.register_pytree_node(
                kind,
                lambda mapping: (list(mapping.values()), list(mapping)),
                functools.partial(_from_pairs, kind),
                serialized_type_name=f"{kind.__module__}.{kind.__qualname__}",
            )
        elif dataclasses.is_dataclass(kind):
            torch.export.register_dataclass(kind)


def _from_pairs(kind: Callable[..., Any], values: Sequence[Any], names: Sequence[Any]) -> Any:
    """A mapping of a class that is made of pairs, or of keywords where it is a dataclass."""
    if dataclasses.is_dataclass(kind):
        return kind(**dict(zip(names, values, strict=True)))
    return kind(zip(names, values, strict=True))


def _values(outputs: object) -> Iterator[object]:
    """An output and all that lies in it."""
    yield outputs
    if isinstance(outputs, Mapping):
        children = list(outputs.values())
    elif isinstance(outputs, tuple | list):
        children = list(outputs)
    elif dataclasses.is_dataclass(outputs):
        children = [getattr(outputs, field.name) for field in dataclasses.fields(outputs)]
    else:
        children = []
    for child in children:
        yield from _values(child)


def _leaf(output: Any) -> Leaf:
    if not isinstance(output, Node):
        return Leaf("constant", output)
    return Leaf("tensor" if output.meta.get("dtype") is not None else "number")


def _paths(spec: pytree.TreeSpec, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if spec.is_leaf():
        yield path
    else:
        for key, child in zip(_keys(spec), spec.children(), strict=True):
            yield from _paths(child, (*path, str(key)))


def _keys(spec: pytree.TreeSpec) -> Sequence[Any]:
    """The names of what a container holds: keys, fields, or else positions."""
    context, count, kind = _context(spec), spec.num_children, spec.type
    if kind is namedtuple:
        return context._fields  # type: ignore[no-any-return]
    if kind in (dict, OrderedDict):
        return list(context)
    # Classes keep their fields' names as the context, or as a part of it.
    parts: list[Any] = [context, *(context if _is_list(context, 2) else ())]
    for names in parts:
        if _is_list(names, count) and all(isinstance(name, str) for name in names):
            return list(names)
    return range(count)


def _absent(spec: pytree.TreeSpec) -> list[str]:
    """The fields of a dataclass that are None, which torch keeps beside those that hold something."""
    context = _context(spec)
    is_pair = dataclasses.is_dataclass(spec.type) and _is_list(context, 2) and _is_list(context[0], spec.num_children)
    return list(context[1]) if is_pair and isinstance(context[1], list) else []


def _context(spec: pytree.TreeSpec) -> Any:
    return spec.context


def _is_list(value: object, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length


def _has_fields(spec: pytree.TreeSpec) -> bool:
    """Whether a container is of a class with named fields that only its authors know."""
    is_known = spec.type in (tuple, list, dict, OrderedDict, namedtuple)
    return not is_known and not isinstance(_keys(spec), range)


def _plain(spec: pytree.TreeSpec, leaves: Iterator[Leaf]) -> tuple[Any, bool]:
    """A container of zeros for what is computed, and whether it holds any."""
    if spec.is_leaf():
        return 0, next(leaves).is_computed
    made = [_plain(child, leaves) for child in spec.children()]
    kept = {str(key): value for key, (value, is_any) in zip(_keys(spec), made, strict=True) if is_any}
    if spec.type in (dict, OrderedDict) or _has_fields(spec):
        return kept, bool(kept)
    return (list if spec.type is list else tuple)(kept.values()), bool(kept)


def _written(spec: pytree.TreeSpec, leaves: Iterator[Leaf]) -> Any:
    if spec.is_leaf():
        leaf = next(leaves)
        return leaf.kind if leaf.is_computed else {"constant": leaf.value}
    children = [_written(child, leaves) for child in spec.children()]
    if spec.type in (dict, OrderedDict):
        keys = [key if isinstance(key, str | int) else str(key) for key in _keys(spec)]
        return {"dict": [[key, child] for key, child in zip(keys, children, strict=True)]}
    if spec.type is namedtuple or _has_fields(spec):
        name = spec.context.__name__ if spec.type is namedtuple else ""
        fields = [[key, child] for key, child in zip(_keys(spec), children, strict=True)]
        fields += [[key, {"constant": None}] for key in _absent(spec)]
        return {"fields": fields, "named_tuple": name}
    return {"list" if spec.type is list else "tuple": children}


def _read(document: Any, leaves: list[Leaf]) -> Any:
    """A container of zeros, whose leaves are appended to ``leaves``."""
    if document in ("tensor", "number"):
        leaves.append(Leaf(document))
        return 0
    kind, content = next(iter(document.items()))
    if kind == "constant":
        if not isinstance(content, _PLAIN):
            raise ValueError(f"a constant among its outputs is {shortened(repr(content))}")
        leaves.append(Leaf("constant", content))
        return 0
    if kind in ("tuple", "list"):
        children = [_read(child, leaves) for child in content]
        return children if kind == "list" else tuple(children)
    pairs = {key: _read(child, leaves) for key, child in content}
    if len(pairs) != len(content) or not all(isinstance(key, str | int) for key in pairs):
        raise ValueError("the keys of its outputs are no names, or are there twice")
    if kind == "dict":
        return pairs
    if kind != "fields" or not all(isinstance(key, str) for key in pairs):
        raise ValueError(f"its outputs are in a {shortened(repr(kind))}")
    if name := document["named_tuple"]:
        return _named_tuple(name, tuple(pairs))(*pairs.values())
    return Record(pairs)


@functools.lru_cache(maxsize=64)
def _named_tuple(name: str, fields: tuple[str, ...]) -> Callable[..., Any]:
    """One class for each name and fields, so that outputs of one network compare equal in structure."""
    if not all(isinstance(text, str) and text.isidentifier() and text.isascii() for text in (name, *fields)):
        raise ValueError("the fields of a named tuple among its outputs are no names")
    return namedtuple(name, fields)


def only_tensor(outputs: object) -> Tensor | None:
    """The one tensor among outputs in any structure; None where there is none, or are several."""
    if isinstance(outputs, Tensor):
        return outputs
    tensors = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return tensors[0] if len(tensors) == 1 else None


def tuple_form(count: int) -> OutputForm:
    """The form of a tensor where there is one, else of a tuple of so many."""
    return OutputForm.from_json("tensor" if count == 1 else {"tuple": ["tensor"] * count})
