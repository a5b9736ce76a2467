"""Methods as pipelines: what a name expands to, and what is refused."""

import json

import pytest

from prunec.compiler.cli.main import run
from prunec.compiler.methods.catalogue import METHODS, method_of
from prunec.compiler.methods.method_steps import method_steps
from prunec.compiler.pipeline.pipeline import Pipeline, parse_pipeline
from prunec.passes.errors import UsageError
from prunec.runtime.target import Target

CPU, SPARSE = Target.parse("cpu"), Target.parse("a100-2:4")


def pipeline(name: str, target: Target = CPU, **tables: dict[str, object]) -> str:
    given = {key.replace("_", "-"): table for key, table in tables.items()}
    return str(Pipeline(tuple(each.step for each in method_steps(method_of(name), given, target, has_data=True))))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_pipeline_that_can_be_read_and_edited(name: str) -> None:
    early = {"early": "early.pt"} if name == "lottery-ticket" else {}
    step = METHODS[name].step_of("ratio").replace("-", "_")
    text = pipeline(name, **{step: {"ratio": 0.5}, "recover": {"epochs": 9, **early}})
    assert str(parse_pipeline(text)) == text
    assert METHODS[name].name == name
    assert METHODS[name].papers, "a method says where it is from"


def test_a_criterion_is_one_pruning_and_its_retraining() -> None:
    text = pipeline("l2", prune_filters={"ratio": 0.5}, recover={"epochs": 9})
    assert text.startswith("prune-filters{ratio=0.5,criterion=l2")
    assert text.endswith("recover{epochs=9}")
    assert "sparsify" not in text


def test_a_target_of_2_4_gets_it_behind_the_filters() -> None:
    assert [step.name for step in parse_pipeline(pipeline("l1", SPARSE)).steps] == [
        "prune-filters", "permute", "sparsify", "recover",
    ]  # fmt: skip


def test_what_a_method_is_made_of_counts_before_the_projects_tables_and_these_before_nothing() -> None:
    text = pipeline(
        "l2", prune_filters={"criterion": "random", "speedup": 3.0}, recover={"epochs": 2, "batch_size": 64}
    )
    assert "criterion=l2" in text
    assert "speedup=3.0" in text
    assert "batch_size=64" in text


def test_other_steps_of_the_project_stand_in_their_places() -> None:
    tables = {"fold-parameters": {}, "re-estimate-batchnorm": {"samples": 64}, "sparsify": {"pattern": "1:4"}}
    names = [step.name for step in parse_pipeline(pipeline("greg-1", **tables)).steps]
    assert names == ["fold-parameters", "recover", "prune-filters", "sparsify", "re-estimate-batchnorm", "recover"]
    masks = [step.name for step in parse_pipeline(pipeline("magnitude", **tables)).steps]
    assert masks == ["fold-parameters", "sparsify", "re-estimate-batchnorm", "recover"]


def test_a_regime_takes_over_what_any_training_can_have() -> None:
    recover = {"epochs": 9, "batch_size": 64, "weight_decay": 1e-4, "ema": 0.99, "distill": 4.0, "warmup": 2}
    regime, *_, last = parse_pipeline(pipeline("sfp", recover=recover)).steps
    assert (regime.options.batch_size, regime.options.weight_decay, regime.options.ema) == (64, 1e-4, 0.0)
    assert (regime.options.epochs, last.options.epochs) == (3, 6)
    assert (last.options.ema, last.options.distill, last.options.warmup) == (0.99, 4.0, 2)


def test_a_mask_has_no_goal_in_macs() -> None:
    with pytest.raises(UsageError, match="--latency-speedup is given: no layer becomes smaller"):
        METHODS["magnitude"].step_of("latency_speedup")
    with pytest.raises(UsageError, match="masks half of the weights at once"):
        pipeline("magnitude", SPARSE, sparsify={"ratio": 0.3})
    with pytest.raises(UsageError, match="masks level by level"):
        pipeline("iterative-magnitude", SPARSE)
    assert [step.name for step in parse_pipeline(pipeline("magnitude", SPARSE)).steps] == [
        "permute", "sparsify", "recover",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "epochs"), [("greg-1", 0), ("greg-1", 1), ("ssl-shape", 1), ("iterative-magnitude", 0)]
)
def test_methods_that_train_have_epochs_for_it(name: str, epochs: int) -> None:
    with pytest.raises(UsageError, match=f"{epochs} epochs are too few"):
        pipeline(name, recover={"epochs": epochs})
    assert "recover" not in pipeline("l1", recover={"epochs": 0})


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no method 'l3'") as caught:
        method_of("l3")
    assert "l1" in str(caught.value)


def test_the_methods_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["method"] for each in listed] == list(METHODS)
    assert all(each["papers"] and each["cost"] for each in listed)
    assert run(["methods"]) == 0
    assert "random" in capsys.readouterr().out


def test_no_order_is_searched_behind_ranks() -> None:
    assert [step.name for step in parse_pipeline(pipeline("cc", SPARSE)).steps] == [
        "prune-filters", "sparsify", "recover",
    ]  # fmt: skip


@pytest.mark.parametrize(("share", "levels"), [(0.2, 1), (0.21, 2), (0.36, 2), (0.5, 4), (0.9, 11)])
def test_levels_go_on_until_the_share_is_masked(share: float, levels: int) -> None:
    steps = parse_pipeline(pipeline("iterative-magnitude", sparsify={"ratio": share}, recover={"epochs": 2})).steps
    assert [step.name for step in steps] == ["sparsify", "recover"] * levels
    assert {step.options.until for step in steps[::2]} == {share}


def test_a_ticket_needs_the_weights_that_it_goes_back_to() -> None:
    with pytest.raises(UsageError, match="no checkpoint of it is named"):
        pipeline("lottery-ticket")


PRETRAIN = {"epochs": 6, "schedule": "cosine:0.1", "keep_step": 40}


def test_a_ticket_goes_back_to_the_weights_that_a_pretraining_keeps() -> None:
    text = pipeline("lottery-ticket", pretrain=PRETRAIN, sparsify={"ratio": 0.2})
    first, _, trained = parse_pipeline(text).steps
    assert str(first) == "pretrain{epochs=6,schedule=cosine:0.1,keep_step=40}"
    assert (trained.options.epochs, trained.options.schedule, trained.options.early) == (6, "wr", "pretrain")
    own = pipeline("lottery-ticket", pretrain=PRETRAIN, recover={"early": "early.pt", "epochs": 4})
    assert {step.options.early for step in parse_pipeline(own).steps if step.name == "recover"} == {"early.pt"}


def test_snip_masks_random_weights_and_trains_as_the_dense_network_is_trained() -> None:
    first, mask, trained = parse_pipeline(pipeline("snip", pretrain=PRETRAIN | {"seed": 3})).steps
    assert str(first) == "pretrain{epochs=0,seed=3}"
    assert mask.options.criterion == "snip"
    assert (trained.options.epochs, trained.options.schedule) == (6, "cosine:0.1")
    told = parse_pipeline(pipeline("snip", pretrain=PRETRAIN, recover={"epochs": 2, "schedule": "clr"})).steps[-1]
    assert (told.options.epochs, told.options.schedule) == (2, "clr")
    assert pipeline("magnitude", pretrain=PRETRAIN).startswith("pretrain{epochs=6,")


def test_branches_go_for_one_ratio() -> None:
    _, prune, _ = parse_pipeline(pipeline("ssl-depth", prune_filters={"ratio": 0.5})).steps
    assert (prune.options.depth, prune.options.allocation, prune.options.ratio) == (True, "balanced", 0.5)


@pytest.mark.parametrize("name", ["taylor", "resrep", "provable", "ssl-depth"])
def test_ratios_by_layer_beside_a_method_that_chooses_widths_are_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=rf"The method {name} chooses .*\[recipe\.prune-filters\] has a ratio"):
        pipeline(name, prune_filters={"ratio": {"*": 0.5}})
    assert "ratio={*=0.5}" in pipeline("l1", prune_filters={"ratio": {"*": 0.5}})


def test_levels_of_no_share_are_refused() -> None:
    with pytest.raises(UsageError, match=r"sparsify: ratio is .*: expected a number"):
        pipeline("iterative-magnitude", sparsify={"ratio": {"*": 0.5}})
