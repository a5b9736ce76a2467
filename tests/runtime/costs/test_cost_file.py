"""A cost model's file gives the model back, holds for one machine, and is read within bounds."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunec.passes.costs.cost_model import CostKey
from prunec.passes.costs.fitted import FittedCosts
from prunec.passes.costs.layers import check_dense, check_pruned, layers_of
from prunec.passes.errors import InputError, UsageError
from prunec.passes.whole_file import write_whole
from prunec.runtime.costs.cost_file import check_key, costs_json, read_costs
from tests.fuzz_readers.readers import program
from tests.passes.costs.synthetic import KEY, engine, workload


@pytest.fixture
def model() -> FittedCosts:
    flow, counts = workload(program())
    return replace(engine(flow.at(counts), 0), error={"layers": 0.021, "network": 0.013}, two_four_gain=1.25)


def test_what_is_written_is_read(model: FittedCosts, tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    write_whole(path, costs_json(model))
    read = read_costs(path)
    assert (read.key, read.error, read.blocks, read.layers) == (model.key, model.error, model.blocks, model.layers)
    assert (read.network, read.two_four_gain) == (model.network, model.two_four_gain) and read.source == "measured"
    np.testing.assert_array_equal(read.laws, model.laws)
    assert costs_json(read) == path.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["costs.json"]


def test_a_model_of_another_network_is_refused(model: FittedCosts) -> None:
    flow, counts = workload(program())
    with pytest.raises(InputError, match=r"knows nothing of the layer '3'"):
        renamed = tuple(replace(each, name=f"x{each.name}") if each.name == "3" else each for each in model.layers)
        replace(model, layers=renamed).layer_ms(flow.at(counts))


def test_layers_tell_the_dense_network_from_others(model: FittedCosts) -> None:
    flow, counts = workload(program())
    dense, narrow = flow.at(counts), flow.at(np.maximum(counts // 2, 1))
    check_dense(model.layers, dense)
    check_pruned(model.layers, dense)
    check_pruned(model.layers, narrow)
    with pytest.raises(InputError, match=r"layer '0' has out_channels 4 here, expected 8"):
        check_dense(model.layers, narrow)
    with pytest.raises(InputError, match=r"layer '0' has out_channels 8 here, expected 4"):
        check_pruned(layers_of(narrow), dense)
    extra = (*model.layers, replace(model.layers[-1], name="zzz"))
    with pytest.raises(InputError, match="no layer 'zzz'"):
        check_dense(extra, dense)
    check_pruned(extra, dense)  # a network may have lost layers
    for change in ({"operator": "linear"}, {"kernel": (5, 5)}):
        others = tuple(replace(each, **change) if each.name == "0" else each for each in model.layers)
        for check in (check_dense, check_pruned):
            ((name, value),) = change.items()
            with pytest.raises(InputError, match=re.escape(f"expected {value!r}")) as refused:
                check(others, dense)
            assert f"the layer '0' has {name} " in refused.value.message


@pytest.mark.parametrize(
    "change", [{"target": "t4"}, {"hardware": "another"}, {"engine": "an engine 1.1"}, {"threads": 2}, {"batch": 8}]
)
def test_a_key_that_does_not_fit_is_refused(model: FittedCosts, change: dict[str, Any]) -> None:
    check_key(model, KEY)
    wanted = replace(KEY, **change)
    with pytest.raises(UsageError) as refused:
        check_key(model, wanted)
    ((name, value),) = change.items()
    assert f"{name}: {getattr(KEY, name)!r}, here {value!r}" in refused.value.message
    assert "batch" not in refused.value.message or name == "batch"
    assert f"prunec measure-costs CHECKPOINT --target {wanted.target} --batch {wanted.batch}" in str(refused.value)


def test_threads_that_do_not_matter_are_not_asked_for(model: FittedCosts) -> None:
    with pytest.raises(UsageError) as refused:
        check_key(model, CostKey("a100", "an A100", "tensorrt 10", None, 1))
    assert "--threads" not in str(refused.value)


def test_the_line_that_measures_anew_has_the_sizes(model: FittedCosts) -> None:
    with pytest.raises(UsageError) as refused:
        check_key(model, replace(KEY, dims="batch=1:4:8, tokens=1:64:128"))
    assert "--dims batch=1:4:8 --dims tokens=1:64:128 -o FILE" in str(refused.value)


def _change(*path: Any, to: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


@pytest.mark.parametrize(
    "change",
    [
        _change("prunec_costs", to=2),
        _change("source", to="roofline"),
        _change("network", to=[1.0]),
        _change("network", 0, to=-1.0),
        _change("two_four_gain", to=0),
        _change("blocks", "size", to=0),
        _change("blocks", "size", to=10**9),
        _change("key", "batch", to=0),
        _change("key", "threads", to="1"),
        _change("key", "hardware", to="x" * 10_000),
        _change("error", "others", to=0.1),
        _change("operations", 0, "laws", to=[]),
        _change("operations", 0, "laws", 0, 0, to=-1e-9),
        _change("operations", 0, "laws", 0, 0, to=1e300),
        _change("operations", 0, "laws", 0, 0, to=float("nan")),
        _change("operations", 1, "name", to=""),
        _change("extra", to=1),
        _change("prunec_costs", to=True),
        _change("key", "threads", to=True),
        _change("network", to=[1e11, 1.0]),
        _change("error", "layers", to=1e11),
        _change("operations", 0, "laws", 0, 0, to=9e11),
        _change("operations", 0, "reads", to=-1),
        _change("operations", 0, "kernel", to=[3.5]),
        _change("key", "hardware", to="\x1b[31mred"),
        _change("key", "engine", to="a\nb"),
        _change("key", "engine", to="\ud800"),
    ],
)
def test_what_is_no_cost_model_is_refused(
    model: FittedCosts, change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    document = json.loads(costs_json(model))
    change(document)
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"The cost model .*costs\.json can't be read"):
        read_costs(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_change("operations", 1, "laws", 0, 2, to=-1.5), r"operations\.1\.laws\.0\.2: .*equal to 0, got -1\.5"),
        (_change("key", "batch", to="8"), r"key\.batch: .*integer, got '8'"),
        (_change("key", "hardware", to="\x1b[31m"), r"key\.hardware: .*control characters, got '.{1,2}x1b\[31m'"),
        (_change("operations", 1, "name", to=""), r"operations: '' stands there 2 times"),
    ],
)
def test_the_message_names_the_place_and_the_value(
    model: FittedCosts, change: Callable[[dict[str, Any]], None], words: str, tmp_path: Path
) -> None:
    document = json.loads(costs_json(model))
    change(document)
    (tmp_path / "costs.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=words) as refused:
        read_costs(tmp_path / "costs.json")
    assert "_CostFile" not in refused.value.message
