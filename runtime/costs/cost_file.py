"""The file of a measured cost model: JSON that runs no code, is read within bounds, and says what it holds for."""

import json
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from prunec.passes.boundary import file_bytes, printable, reading, shortened
from prunec.passes.costs.cost_model import CostKey, CostModel
from prunec.passes.costs.fitted import FEATURES, REGIMES, Blocks, FittedCosts
from prunec.passes.costs.layers import DenseLayer
from prunec.passes.errors import UsageError

#: A network of 100,000 operations has some 50 MB.
_MAX_BYTES, _MAX_OPERATIONS, _MAX_CHARACTERS = 64 << 20, 100_000, 1000
_MAX_CHANNELS, _MAX_ELEMENTS, _MAX_DIMENSIONS = 1 << 16, 1 << 53, 8
#: A quarter of an hour for one inference, or for one element; and a model that is a hundred times off is none.
_MAX_MS, _MAX_ERROR, _MAX_GAIN = 1e6, 100.0, 100.0


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected text without control characters")
    return text


_Text = Annotated[str, Field(max_length=_MAX_CHARACTERS), AfterValidator(_printable)]
_Amount = Annotated[float, Field(ge=0, le=_MAX_MS, allow_inf_nan=False)]
_Error = Annotated[float, Field(ge=0, le=_MAX_ERROR, allow_inf_nan=False)]
_Size = Annotated[int, Field(ge=0, le=_MAX_ELEMENTS)]
_Count = Annotated[int, Field(ge=1, le=_MAX_CHANNELS)]
_Law = Annotated[list[_Amount], Field(min_length=len(FEATURES), max_length=len(FEATURES))]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Key(_Part):
    target: _Text
    hardware: _Text
    engine: _Text
    threads: Annotated[int, Field(ge=0, le=_MAX_CHANNELS)] | None
    batch: Annotated[int, Field(ge=1, le=1 << 31)]
    dims: _Text


class _Blocks(_Part):
    size: _Count
    per_set: _Count
    multiple: _Count


class _Operation(_Part):
    name: _Text
    operator: _Text
    kernel: Annotated[tuple[_Size, ...], Field(max_length=_MAX_DIMENSIONS)]
    in_channels: _Size
    out_channels: _Size
    weights: _Size
    reads: _Size
    writes: _Size
    laws: Annotated[list[_Law], Field(min_length=len(REGIMES), max_length=len(REGIMES))]


class _CostFile(_Part):
    """A costs.json, version 1; milliseconds, and the laws in the order of `REGIMES` and `FEATURES`."""

    prunec_costs: Annotated[int, Field(ge=1, le=1)]  # a literal 1 would take true, too
    source: Literal["measured"]
    key: _Key
    error: dict[Literal["layers", "network"], _Error]
    blocks: _Blocks
    network: Annotated[list[_Amount], Field(min_length=2, max_length=2)]
    two_four_gain: Annotated[float, Field(gt=0, le=_MAX_GAIN, allow_inf_nan=False)]
    operations: Annotated[list[_Operation], Field(max_length=_MAX_OPERATIONS)]


def costs_json(model: FittedCosts) -> str:
    """The text of a model's file; `read_costs` gives an equal model back."""
    laws = np.moveaxis(model.laws, 0, 1).tolist()
    document = {
        "prunec_costs": 1,
        "source": model.source,
        "key": asdict(model.key),
        "error": dict(model.error),
        "blocks": asdict(model.blocks),
        "network": list(model.network),
        "two_four_gain": model.two_four_gain,
        "operations": [{**asdict(layer), "laws": law} for layer, law in zip(model.layers, laws, strict=True)],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read_costs(path: Path) -> FittedCosts:
    """The model in a file.

    Raises:
        InputError: The file can't be read, is larger than any, or holds no cost model.
    """
    what = f"The cost model {path}"
    content = file_bytes(path, _MAX_BYTES, what)
    with reading(what, "a cost model", hint="prunec measure-costs CHECKPOINT --target TARGET -o FILE writes one."):
        stored = _validated(content)
        layers = tuple(DenseLayer(**operation.model_dump(exclude={"laws"})) for operation in stored.operations)
        ((name, count),) = Counter(layer.name for layer in layers).most_common(1) or [("", 0)]
        if count > 1:
            raise ValueError(f"operations: {shortened(repr(name))} stands there {count} times")
        laws = np.array([operation.laws for operation in stored.operations], dtype=np.float64)
        laws = np.moveaxis(laws.reshape(len(layers), len(REGIMES), len(FEATURES)), 1, 0)
        key, blocks = CostKey(**stored.key.model_dump()), Blocks(**stored.blocks.model_dump())
        (beside, factor), gain = stored.network, stored.two_four_gain
        error = {str(name): value for name, value in stored.error.items()}
        return FittedCosts(key, error, blocks, layers, laws, (beside, factor), gain)


def _validated(content: bytes) -> _CostFile:
    """The content as a file's, or ValueError with the first place that is wrong and the value there."""
    try:
        return _CostFile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:
            raise ValueError(first["msg"]) from error
        got = shortened(printable(repr(first["input"])))
        where = printable(".".join(map(str, first["loc"])))
        raise ValueError(f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}, got {got}") from error


def check_key(model: CostModel, wanted: CostKey) -> None:
    """Refuse a model that holds for something else.

    Raises:
        UsageError: It does; the message names what differs, the hint the line that measures anew.
    """
    differing = [
        f"{each.name}: {getattr(model.key, each.name)!r}, here {getattr(wanted, each.name)!r}"
        for each in fields(CostKey)
        if getattr(model.key, each.name) != getattr(wanted, each.name)
    ]
    if differing:
        threads = "" if wanted.threads is None else f" --threads {wanted.threads}"
        dims = "".join(f" --dims {each}" for each in wanted.dims.split(", ") if each)
        raise UsageError(
            f"The cost model doesn't hold here. It was measured with {'; '.join(differing)}.",
            hint="Measure it anew: prunec measure-costs CHECKPOINT "
            f"--target {wanted.target} --batch {wanted.batch}{threads}{dims} -o FILE.",
        )
