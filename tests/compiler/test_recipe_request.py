"""Recipes of a project file and the command line together: which steps run, with what, and who said so."""

import re
from itertools import combinations
from pathlib import Path

import pytest

from prunec.compiler.pipeline.own_steps import OWN_STEPS
from prunec.compiler.project.config import Config, load_config
from prunec.compiler.project.recipe_request import RecipeOptions, ResolvedRecipe, resolve_recipe
from prunec.passes.allocation.goals import GOALS
from prunec.passes.errors import UsageError
from prunec.runtime.target import Target

DATA = '[data]\ntrain = "npz:d.npz"\ntest = "npz:d.npz"\n'
#: An option of each step's table that leaves its work as it is.
HARMLESS = {
    "pretrain": "epochs = 0",
    "fold-parameters": "",
    "prune-filters": "samples = 128",
    "permute": "seed = 0",
    "decompose": "speedup = 1.5",
    "sparsify": "samples = 128",
    "re-estimate-batchnorm": "",
    "recover": "epochs = 20",
    "calibrate": "samples = 256",
}


def config(folder: Path, text: str) -> Config:
    (folder / "prunec.toml").write_text(text)
    return load_config(folder / "prunec.toml")


def resolved(folder: Path, text: str, target: str = "cpu", **options: object) -> ResolvedRecipe:
    return resolve_recipe(config(folder, text), RecipeOptions(**options), Target.parse(target))  # type: ignore[arg-type]


def names(recipe: ResolvedRecipe) -> list[str]:
    return [step.name for step in recipe.pipeline.steps]


@pytest.mark.parametrize("target", ["cpu", "a100-2:4", "l4-2:4-int8"])
@pytest.mark.parametrize("data", ["", DATA])
def test_a_table_turns_no_step_off_and_changes_no_other(tmp_path: Path, target: str, data: str) -> None:
    """Whatever tables there are, a step without one is as it is without any table."""
    alone = resolved(tmp_path, data, target).pipeline
    assert set(HARMLESS) == set(OWN_STEPS)
    for count in (1, 2, 3):
        for tables in combinations(HARMLESS, count):
            text = data + "".join(f"[recipe.{name}]\n{HARMLESS[name]}\n" for name in tables)
            by_name = {step.name: step for step in resolved(tmp_path, text, target).pipeline.steps}
            for step in alone.steps:
                assert by_name[step.name].options == step.options or step.name == "permute", text


def test_the_defaults_are_per_step(tmp_path: Path) -> None:
    assert str(resolved(tmp_path, "").pipeline) == "prune-filters{speedup=2.0,round_to=16,min_channels=8}"
    recipe = resolved(tmp_path, f"{DATA}[recipe.recover]\nschedule = 'constant:0.1'\n[recipe.sparsify]\n", "a100-2:4")
    assert names(recipe) == ["prune-filters", "permute", "sparsify", "recover"]
    assert recipe.pipeline.steps[-1].options.epochs == 20
    in_int8 = resolved(tmp_path, f"{DATA}[recipe.calibrate]\nmethod = 'entropy'\n", "l4-2:4-int8")
    assert names(in_int8) == ["prune-filters", "permute", "sparsify", "recover", "calibrate"]
    assert in_int8.pipeline.steps[-1].options.method == "entropy"
    assert "calibrate" not in names(resolved(tmp_path, "[recipe.calibrate]\nmethod = 'entropy'\n"))
    ratio = resolved(tmp_path, "[recipe.prune-filters]\nratio = 0.5").pipeline.steps[0].options
    assert (ratio.ratio, ratio.speedup) == (0.5, None)


@pytest.mark.parametrize("given", [{"ratio": 0.25}, {"plan": "plan.json"}])
def test_a_ratio_or_a_plan_takes_the_place_of_goals_and_what_chooses_for_them(
    tmp_path: Path, given: dict[str, object]
) -> None:
    text = "[recipe.prune-filters]\nlatency_speedup = 1.5\nallocation = 'greedy'\ndepth = true\n"
    options = resolved(tmp_path, text, **given).pipeline.steps[0].options
    assert {name: getattr(options, name) for name in given} == given
    assert (options.goals.given, options.allocation, options.depth) == ({}, "auto", False)
    assert resolved(tmp_path, text, speedup=2.0).pipeline.steps[0].options.depth


def test_steps_says_what_runs(tmp_path: Path) -> None:
    listed = f'{DATA}[recipe]\nsteps = ["re-estimate-batchnorm", "recover"]\n'
    assert names(resolved(tmp_path, listed)) == ["re-estimate-batchnorm", "recover"]
    assert names(resolved(tmp_path, listed, epochs=0)) == ["re-estimate-batchnorm"]
    assert resolved(tmp_path, listed, epochs=3).pipeline.steps[1].options.epochs == 3
    assert names(resolved(tmp_path, "[recipe]\nsteps = []")) == []
    sparse = '[recipe]\nsteps = ["sparsify"]\n[recipe.sparsify]\nignore = ["fc"]\n'
    assert names(resolved(tmp_path, sparse)) == names(resolved(tmp_path, sparse, "l4-2:4")) == ["sparsify"]
    assert resolved(tmp_path, listed).notes == resolved(tmp_path, sparse).notes == ()


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ('steps = ["recover"]\n[recipe.sparsify]', {}, "sparsify.* of a step that doesn't run"),
        ('steps = ["recover"]\n[recipe.prune-filters]\nratio = 0.5', {}, "Add 'prune-filters' to steps"),
        ('steps = ["prune"]', {}, "has no step 'prune'.\nDid you mean 'prune-filters'"),
        ('steps = ["recover", "recover"]', {}, "'recover' twice"),
        ('steps = "recover"', {}, "expected a list"),
        ('steps = ["recover"]\npipeline = "sparsify"', {}, "both a pipeline and steps"),
        ('steps = ["recover", "prune-filters"]', {}, "prune-filters after recover"),
        ('steps = ["recover"]', {"speedup": 2.0}, "--speedup is for prune-filters, which"),
        ('steps = ["recover"]', {"ratio": 0.5}, "Add 'prune-filters' to it"),
        ('steps = ["prune-filters"]', {"epochs": 3}, "--epochs is for recover"),
        *(("", {goal: 2, other: 0.5}, "exclude each other") for goal in GOALS for other in ("ratio", "plan")),
        ('pipeline = "prune-filters{ratio=0.5}"', {"epochs": 3}, "in text form says what is done"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, text: str, options: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolved(tmp_path, f"[recipe]\n{text}\n", **options)


def test_one_line_where_steps_run_that_the_tables_do_not_name(tmp_path: Path) -> None:
    (note,) = resolved(tmp_path, f"{DATA}[recipe.recover]\nepochs = 1\n").notes
    assert "prunec.toml has no [recipe.prune-filters]: filters are pruned by default (speedup=2.0)." in note
    assert note.endswith('steps = ["recover"] under [recipe].')
    (note,) = resolved(tmp_path, f"{DATA}[recipe.prune-filters]\nratio = 0.5\n", "l4-2:4").notes
    assert "the network is retrained by default (epochs=20)" in note
    assert 'steps = ["prune-filters", "permute", "sparsify"]' in note
    for quiet, options in (
        ("", {}),
        (DATA, {}),
        ("[recipe.prune-filters]\nratio = 0.5\n", {}),
        ("[recipe]\nseed = 3\n", {}),
        ("[recipe.fold-parameters]\n", {"ratio": 0.5}),
        (f"{DATA}[recipe.prune-filters]\nratio = 0.5\n", {"epochs": 0}),
        ('[recipe]\npipeline = "prune-filters{ratio=0.5}"\n', {}),
    ):
        assert resolved(tmp_path, quiet, **options).notes == (), quiet


def test_the_line_s_advice_does_what_it_says(tmp_path: Path) -> None:
    text = "[recipe.fold-parameters]\n[recipe.sparsify]\nignore = ['fc']\n"
    (note,) = resolved(tmp_path, text, "a100-2:4").notes
    advice = note.partition("For the others alone: ")[2].removesuffix(" under [recipe].")
    told = resolved(tmp_path, f"[recipe]\n{advice}\n{text}", "a100-2:4")
    assert names(told) == ["fold-parameters", "permute", "sparsify"]
    assert told.pipeline.steps[1].options.ignore == ("fc",)


@pytest.mark.parametrize("goal", GOALS)
def test_every_goal_has_a_flag_that_takes_the_place_of_a_ratio(tmp_path: Path, goal: str) -> None:
    recipe = resolved(tmp_path, "[recipe.prune-filters]\nratio = 0.25", **{goal: 2})
    (step,) = recipe.pipeline.steps
    assert (step.options.ratio, step.options.goals.given) == (None, {goal: 2})
    (row,) = [row for row in recipe.rows if row.option == goal]
    assert row.source == f"--{goal.replace('_', '-')}"


def test_each_value_has_its_source(tmp_path: Path) -> None:
    text = (
        f'{DATA}[recipe]\nseed = 3\n\n[recipe.prune-filters]\nratio = 0.25\n"min-channels" = 2\n'
        "[recipe.sparsify]\nignore = ['fc']\n[recipe.recover] # short\nepochs = 5\n"
    )
    recipe = resolved(tmp_path, text, "a100-2:4", ratio=0.5)
    source = {(row.step, row.option): (row.value, row.source) for row in recipe.rows}
    lines = text.splitlines()

    def at(line: str) -> str:
        return f"prunec.toml line {1 + lines.index(line)}"

    assert source["", "seed"] == ("3", at("seed = 3"))
    assert source["prune-filters", ""] == ("runs", "default")
    assert source["prune-filters", "ratio"] == ("0.5", "--ratio")
    assert source["prune-filters", "min_channels"] == ("2", at('"min-channels" = 2'))
    assert source["prune-filters", "round_to"] == ("16", "target")
    assert source["prune-filters", "criterion"] == ("l1", "default")
    assert source["permute", ""] == source["sparsify", ""] == ("runs", "target")
    assert source["permute", "ignore"] == ("('fc',)", "[recipe.sparsify]")
    assert source["sparsify", "ignore"] == ("('fc',)", at("ignore = ['fc']"))
    assert source["recover", "epochs"] == ("5", at("epochs = 5"))
    dense = resolved(tmp_path, text, epochs=0)
    idle = {row.step: row for row in dense.rows if row.value == "doesn't run"}
    assert idle["sparsify"].source == "cpu asks for no 2:4"
    assert idle["recover"].source == "--epochs 0"


def test_a_pipeline_as_text_is_the_source_of_its_options(tmp_path: Path) -> None:
    text = '[recipe]\npipeline = "prune-filters{ratio=0.5}"\n'
    for options, source in (({}, "prunec.toml line 2"), ({"pipeline": "prune-filters{ratio=0.25}"}, "--pipeline")):
        rows = {row.option: row for row in resolved(tmp_path, text, **options).rows}
        assert rows[""].source == rows["ratio"].source == source
        assert rows["criterion"].source == "default"


@pytest.mark.parametrize(
    "text",
    [
        'recipe.recover.epochs = 5\n[data]\ntrain = "npz:d.npz"\ntest = "npz:d.npz"\n',
        f"[recipe]\nrecover = {{epochs = 5}}\n{DATA}",
        f"[recipe.recover]\nepochs = 5\nhooks = '''\nepochs = 7\n'''\n{DATA}",
    ],
)
def test_a_line_that_is_not_sure_is_not_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prunec.toml"
    path.write_text(text)
    if "hooks" in text:
        from prunec.compiler.project.recipe_request import _Places

        assert _Places(path).of("recipe.recover", "epochs") == "prunec.toml [recipe.recover]"
        return
    rows = resolved(tmp_path, text).rows
    assert [row.source for row in rows if row.option == "epochs"] == ["[recipe.recover]"]


@pytest.mark.parametrize("target", ["cpu", "a100", "a100-2:4"])
@pytest.mark.parametrize("data", ["", DATA])
@pytest.mark.parametrize("options", [{}, {"epochs": 0}, {"epochs": 3}, {"speedup": 3.0}, {"epochs": 0, "ratio": 0.5}])
def test_the_advice_of_the_note_is_a_recipe_that_runs(
    tmp_path: Path, target: str, data: str, options: dict[str, object]
) -> None:
    """For every table and target: what the note says gives the steps that it names, and needs no note of its own."""
    followed = 0
    for count in (1, 2, 3):
        for tables in combinations(HARMLESS, count):
            text = {name: f"[recipe.{name}]\n{HARMLESS[name]}\n" for name in tables}
            before = resolved(tmp_path, data + "".join(text.values()), target, **options)
            for note in before.notes:
                advice = re.search(r"alone: (steps = \[(.*)\]) under \[recipe\](?:, and no (.*))?\.$", note)
                assert advice, note
                gone = re.findall(r"\[recipe\.([a-z-]+)\]", advice[3] or "")
                kept = "".join(table for name, table in text.items() if name not in gone)
                after = resolved(tmp_path, f"{data}[recipe]\n{advice[1]}\n{kept}", target, **options)
                assert names(after) == re.findall(r'"([a-z-]+)"', advice[2])
                assert after.notes == ()
                followed += 1
    assert followed or (target == "a100-2:4" and not data) or "speedup" in options or "ratio" in options


def test_an_option_in_two_spellings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\[recipe.prune-filters\] has 'round_to' twice, also as 'round-to'"):
        resolved(tmp_path, "[recipe.prune-filters]\nround-to = 2\nround_to = 4\n")


@pytest.mark.parametrize("options", [{"epochs": 0}, {"pipeline": "prune-filters{ratio=0.5}"}])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[recipe.recover]\nepohcs = 3", "epohcs"),
        ("[recipe.recover]\nepochs = 0", "at least 1"),
        ("[recipe.recover]\nschedule = 'cosinus:1'", "cosinus"),
        ("[recipe.prune-filters]\nratio = 2", "ratio"),
    ],
)
def test_what_is_left_out_is_read_all_the_same(
    tmp_path: Path, options: dict[str, object], text: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        resolved(tmp_path, DATA + text, **options)


def test_tables_beside_a_pipeline_of_the_command_line_are_told(tmp_path: Path) -> None:
    text = f"{DATA}[recipe]\nsteps = ['recover']\n[recipe.recover]\nepochs = 3"
    (note,) = resolved(tmp_path, text, pipeline="prune-filters{ratio=0.5}").notes
    assert "--pipeline says what is done: [recipe] steps and [recipe.recover] of" in note
    assert resolved(tmp_path, DATA, pipeline="prune-filters{ratio=0.5}").notes == ()
    with pytest.raises(UsageError, match="nothing-of-it"):
        resolved(tmp_path, "[recipe]\npipeline = 'nothing-of-it'", pipeline="prune-filters{ratio=0.5}")
