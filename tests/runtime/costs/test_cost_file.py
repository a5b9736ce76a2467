"""A cost model's file gives the model back, holds for one machine, and is read within bounds."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunec.passes.costs.cost_model import CostKey
from prunec.passes.costs.fitted import FittedCosts
from prunec.passes.errors import EnvironmentFailure, InputError, UsageError
from prunec.runtime.costs.cost_file import check_key, costs_json, read_costs, write_costs
from tests.fuzz_readers.readers import program
from tests.passes.costs.synthetic import KEY, engine, workload


@pytest.fixture
def model() -> FittedCosts:
    return replace(engine(workload(program())[0].operations, 0), error={"layers": 0.021, "network": 0.013})


def test_what_is_written_is_read(model: FittedCosts, tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    write_costs(model, path)
    read = read_costs(path)
    assert (read.key, read.error, read.blocks, read.names) == (model.key, model.error, model.blocks, model.names)
    assert read.network == model.network and read.source == "measured"
    np.testing.assert_array_equal(read.laws, model.laws)
    assert costs_json(read) == path.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["costs.json"]


def test_a_model_of_another_network_is_refused(model: FittedCosts) -> None:
    flow, counts = workload(program())
    with pytest.raises(InputError, match=r"knows nothing of the layer '3'"):
        replace(model, names=tuple(f"x{name}" if name == "3" else name for name in model.names)).layer_ms(
            flow.at(counts)
        )


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


def test_a_file_that_can_not_be_written_leaves_nothing(model: FittedCosts, tmp_path: Path) -> None:
    (tmp_path / "costs.json").mkdir()
    with pytest.raises(EnvironmentFailure, match="can't be written"):
        write_costs(model, tmp_path / "costs.json")
    assert [each.name for each in tmp_path.iterdir()] == ["costs.json"]
