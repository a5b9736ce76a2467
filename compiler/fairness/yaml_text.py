"""YAML as run cards are written in, bounded in depth and in what its aliases stand for."""

from typing import Any

import yaml

#: The loader in C is ten times as fast; not every build of PyYAML has it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 64
_MAX_NODES = 200_000


def read_yaml(text: str) -> Any:
    """The values of a document.

    Raises:
        yaml.YAMLError: It is no YAML.
        ValueError: A value can't be, brackets are nested too deeply, or aliases stand for too much.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):  # without recursion, unlike what comes after it
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_DEPTH} lists and mappings lie within each other")
    loader = _LOADER(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}, _MAX_DEPTH) > _MAX_NODES:
            raise ValueError(f"its aliases stand for more than {_MAX_NODES} values")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: Any, known: dict[int, int], levels: int) -> int:
    """Number of values below a node, those of aliases counted wherever they are used."""
    if id(node) not in known:
        if levels < 0:
            raise ValueError("an alias stands for something that it lies in, or lies too deep")
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        children = [child for pair in pairs for child in pair] if pairs else node.value
        below = children if isinstance(children, list) else []
        known[id(node)] = 1 + sum(_size(child, known, levels - 1) for child in below)
    return known[id(node)]
