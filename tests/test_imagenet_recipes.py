"""A dry run of the full-size recipes: widths, multiply-accumulates, learning rates and comparison levels, no images."""

from pathlib import Path

import pytest
import torch

from prunec.calibration.user_code import import_callable
from prunec.compiler.commands.compile_checkpoint import resolve_pipeline
from prunec.compiler.commands.compile_job import RecipeOptions
from prunec.compiler.fairness.card_reading import read_cards
from prunec.compiler.fairness.comparison_levels import compare_pair
from prunec.compiler.fairness.run_card import RunCard
from prunec.compiler.project.config import Config, load_config
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.passes import capture
from prunec.passes.prune_filters import PruneFilters
from prunec.runtime.target import Target
from tests.zoo import shim  # noqa: F401 - lets torchvision import

FOLDER = Path(__file__).parents[1] / "examples" / "imagenet"
RESNET34 = sorted(path.name for path in FOLDER.glob("resnet34-*.toml"))
#: Published, of tests/golden: multiply-accumulates before and after.
MACS = {
    "resnet50-2.31x.toml": (4_089_184_256, 2.308),
    "resnet50-2.56x.toml": (4_089_184_256, 2.564),
    "resnet34-P30F90-1e-2.toml": (3_663_300_608, 12.06),
}


def steps(config: Config) -> tuple[PruneFilters, Recover]:
    pipeline = resolve_pipeline(config, RecipeOptions(), Target.parse("a100-dense"))
    pruning, recovery = (step.options for step in pipeline.steps)
    assert isinstance(pruning, PruneFilters)
    assert isinstance(recovery, Recover)
    return pruning, recovery


@pytest.mark.parametrize("name", MACS)
def test_networks_come_out_at_the_published_size(name: str) -> None:
    config = load_config(FOLDER / name)
    assert config.model.factory is not None
    assert config.model.input == ((3, 224, 224),)
    network = import_callable(config.model.factory, FOLDER)()
    program = capture(network, (torch.zeros(2, 3, 224, 224),))
    dense, speedup = MACS[name]
    assert program.macs() == dense
    pruned = steps(config)[0].run(program).program
    assert dense / pruned.macs() == pytest.approx(speedup, abs=5e-3)


@pytest.mark.parametrize("name", ["resnet50-2.31x.toml", "resnet50-2.56x.toml"])
def test_resnet50_is_retrained_as_published(name: str) -> None:
    recovery = steps(load_config(FOLDER / name))[1].resolved("sgd")
    schedule = parse_schedule(recovery.schedule, epochs=recovery.epochs)
    assert schedule.trace(90) == [[0, 1e-2], [30, 1e-3], [60, 1e-4], [75, 1e-5]]
    assert (recovery.batch_size, recovery.momentum, recovery.weight_decay) == (256, 0.9, 1e-4)


def test_all_rows_of_the_table_are_there() -> None:
    cards = read_cards(FOLDER.with_name("published") / "table4.yaml")
    names = {card.name for card in cards if card.speedup == 12.06}
    rows = {row(name) for name in RESNET34}
    assert len(rows) == 9
    assert rows <= names
    assert {name for name in names - rows if name != "scratch"} == {n for n in names if n.startswith("P30/k")}


@pytest.mark.parametrize("name", RESNET34)
def test_rows_have_the_level_that_the_paper_gives_them(name: str) -> None:
    published = {card.name: card for card in read_cards(FOLDER.with_name("published") / "table4.yaml")}
    config = load_config(FOLDER / name)
    recovery, training = steps(config)[1], config.model.pretraining
    assert training is not None
    ours = RunCard.model_validate(
        published[row(name)].model_dump()
        | {
            "name": "ours",
            "pretraining": {"epochs": training.epochs, "schedule": training.schedule},
            "finetuning": {"epochs": recovery.epochs, "schedule": recovery.schedule},
        }
    )
    scratch = published["scratch"]
    assert compare_pair(ours, scratch).level == compare_pair(published[row(name)], scratch).level
    assert compare_pair(ours, scratch).tags == compare_pair(published[row(name)], scratch).tags
    assert compare_pair(ours, published[row(name)]).level == "S4.2"


def row(name: str) -> str:
    """``resnet34-P30F90-1e-2.toml`` as P30F90,1e-2."""
    _, where, rate = name.removesuffix(".toml").split("-", 2)
    return f"{where},{rate}"
