"""The pass that masks, by every pattern: eligible layers, whole programs, files, and what the framework checks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from prunec.calibration import collect_evidence
from prunec.calibration.one_shot import sparsify_by_inputs
from prunec.passes.criteria import Evidence
from prunec.passes.errors import InputError, SparsityGateError, UsageError
from prunec.passes.patterns.unit_masks import has_pattern, holds_mask
from prunec.passes.program import Program
from prunec.passes.sparsify import Sparsify
from prunec.passes.verify import input_unchanged, verify_pass
from tests.passes.checks import Net, captured, normal

PATTERNS = ["elements", "rows", "channels", "columns", "block:2x4"]


def network() -> Program:
    net = Net(
        lambda s, x: s.head(s.up(s.deep(s.wide(s.stem(x)).relu()).relu()).mean((2, 3))),
        stem=nn.Conv2d(3, 8, 1), wide=nn.Conv2d(8, 8, 3, padding=1), deep=nn.Conv2d(8, 8, 3, groups=8),
        up=nn.ConvTranspose2d(8, 8, 2), head=nn.Linear(8, 4),
    )  # fmt: skip
    return captured(net, normal(2, 3, 6, 6))


@dataclass(frozen=True)
class Later:
    """The last elements stay: a criterion of a plug-in, which knows nothing of patterns."""

    name: ClassVar[str] = "later"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def score_elements(self, weight: Tensor, evidence: Evidence) -> Tensor:
        return torch.arange(weight.numel(), dtype=torch.float32).reshape(weight.shape)


@pytest.mark.parametrize("criterion", ["magnitude", Later()])
@pytest.mark.parametrize("allocation", ["layer", "global"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_by_any_criterion(pattern: str, allocation: Any, criterion: Any) -> None:
    program = network()
    options = Sparsify(pattern=pattern, ratio=0.5, allocation=allocation, criterion=criterion)
    with input_unchanged(program, "sparsify"):
        result = options.run(program)
    verify_pass(program, result, "sparsify")
    after, tensors = result.program, result.program.tensors()
    by_rows = {"stem.weight", "wide.weight", "deep.weight", "head.weight"}
    plain = by_rows - {"deep.weight"}
    expected = {"elements": by_rows | {"up.weight"}, "rows": by_rows}.get(pattern, plain)
    assert after.masks.keys() == expected
    for name, mask in after.masks.items():
        assert after.pattern_of(name).text == pattern
        assert holds_mask(tensors[name], mask, after.pattern_of(name))
        assert torch.equal(tensors[name], program.tensors()[name] * mask)
    assert after.masked_to(pattern) == expected
    assert after.masked_to("2:4") == frozenset()
    assert result.aim is not None
    assert result.aim.what == "weights masked"
    assert result.aim.got == result.stats["masked"] == sum(int((~mask).sum()) for mask in after.masks.values())
    assert result.stats["weights"] == sum(mask.numel() for mask in after.masks.values())
    assert result.aim.asked == result.stats["wanted"] == 0.5 * result.stats["weights"]


def test_where_each_layer_loses_its_share_one_unit_stays() -> None:
    program = captured(nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 3)), normal(2, 4))
    result = Sparsify(pattern="rows", ratio=0.9).run(program)
    assert [int((~mask).sum()) for mask in result.program.masks.values()] == [0, 2]
    assert result.aim is not None
    assert (result.aim.got, result.aim.reason) == (2, "one unit stays in every layer")
    everywhere = Sparsify(pattern="elements", ratio=0.9, allocation="global").run(program)
    assert everywhere.stats["masked"] == 7
    assert result.stats["emptied"] == []


def test_layers_of_which_nothing_is_left_are_named() -> None:
    program = captured(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), normal(2, 4))
    with torch.no_grad():
        program.parameters()["2.weight"].mul_(1e-9)
    result = Sparsify(pattern="elements", ratio=0.5, allocation="global").run(program)
    assert result.stats["emptied"] == ["2"]


def test_the_classifier_is_left_dense_where_it_is_asked_for() -> None:
    result = Sparsify(pattern="elements", ratio=0.5, ignore=("classifier",)).run(network())
    assert "head.weight" not in result.program.masks
    assert "stem.weight" in result.program.masks
    with pytest.raises(UsageError, match="ignore: no layer matches 'classify'"):
        Sparsify(pattern="elements", ratio=0.5, ignore=("classify",)).run(network())


@pytest.mark.parametrize("pattern", ["1:4", "4:8", "2:8"])
def test_other_n_of_m(pattern: str) -> None:
    result = Sparsify(pattern=pattern).run(network())
    assert result.program.masks.keys() == {"wide.weight", "head.weight"}
    n, m = map(int, pattern.split(":"))
    for mask in result.program.masks.values():
        assert int(mask.sum()) * m == mask.numel() * n
    assert result.aim is not None
    assert (result.aim.what, result.aim.asked, result.aim.got) == (f"layers made {pattern}", 3, 2)
    assert result.aim.reason.startswith(f"3 input channels are no multiple of {m}")


@pytest.mark.parametrize(("first", "second"), [("elements", "rows"), ("2:4", "elements"), ("elements", "2:4")])
def test_a_weight_has_one_pattern(first: str, second: str) -> None:
    def options(pattern: str, **ignored: Any) -> Sparsify:
        return Sparsify(pattern=pattern, ratio=None if ":" in pattern else 0.5, **ignored)

    masked = options(first).run(network()).program
    with pytest.raises(UsageError, match=f"is masked to {first} already, and {second} is asked for"):
        options(second).run(masked)
    apart = options(second, ignore=("wide", "stem", "deep", "up")).run(
        options(first, ignore=("head",)).run(network()).program
    )
    patterns = {name: apart.program.pattern_of(name).text for name in apart.program.masks}
    assert patterns["head.weight"] == second
    assert patterns["wide.weight"] == first


def test_files_keep_the_patterns(tmp_path: Path) -> None:
    program = Sparsify(pattern="rows", ratio=0.5, ignore=("head",)).run(network()).program
    program = Sparsify(ignore=("stem", "wide", "deep", "up")).run(program).program
    program.save(tmp_path / "model.pt2")
    read = Program.load(tmp_path / "model.pt2")
    for name in program.masks:
        assert read.pattern_of(name) == program.pattern_of(name)
        assert torch.equal(read.masks[name], program.masks[name])
    assert read.patterns == program.patterns
    program.patterns["head.weight"] = "stripes"
    program.save(tmp_path / "odd.pt2")
    with pytest.raises(InputError, match=r"the pattern of head\.weight isn't known"):
        Program.load(tmp_path / "odd.pt2")


def test_copies_keep_the_patterns() -> None:
    program = Sparsify(pattern="rows", ratio=0.5).run(network()).program
    for copy in (program.clone(), program.single(), program.with_tensors(program.tensors())):
        assert copy.patterns == program.patterns
        assert copy.patterns is not program.patterns


def test_a_mask_without_its_pattern_is_refused() -> None:
    program = network()
    result = Sparsify(pattern="rows", ratio=0.5).run(program)
    result.program.masks["head.weight"][0, 0] ^= True
    result.program.apply_masks()
    with pytest.raises(SparsityGateError, match=r"head\.weight isn't made of whole units of rows"):
        verify_pass(program, result, "the-pass")


def test_levels_grow_the_masks() -> None:
    program = network()
    options = Sparsify(pattern="elements", ratio_of_rest=0.2, until=0.4, allocation="global")
    shares = []
    for _ in range(4):
        result = options.run(program)
        verify_pass(program, result, "sparsify")
        for name, mask in program.masks.items():
            assert not (result.program.masks[name] & ~mask).any()
        shares.append(result.stats["masked"] / result.stats["weights"])
        program = result.program
    assert shares == pytest.approx([0.2, 0.36, 0.4, 0.4], abs=2 / result.stats["weights"])


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("pattern", ["elements", "1:4", "block:2x4"])
def test_criteria_of_inputs_mask_any_pattern(criterion: str, pattern: str) -> None:
    torch.manual_seed(0)
    program, x = network().single(), torch.randn(40, 3, 6, 6)
    ratio = None if ":" in pattern and "block" not in pattern else 0.5
    options = Sparsify(pattern=pattern, criterion=criterion, ratio=ratio)
    assert options.is_sequential
    result = sparsify_by_inputs(program, options, x)
    assert "deep.weight" not in result.program.masks, "the inputs of grouped convolutions aren't looked at"
    tensors = result.program.tensors()
    for name, mask in result.program.masks.items():
        assert holds_mask(tensors[name], mask, options.rule.pattern)
    masked = [layer for layer in result.stats["layers"] if layer["eligible"]]
    assert all(0 <= layer["output_error"] < 1 for layer in masked)


def test_one_threshold_takes_the_inputs_of_the_network_as_it_is() -> None:
    torch.manual_seed(0)
    program, x = network().single(), torch.randn(40, 3, 6, 6)
    options = Sparsify(pattern="elements", criterion="wanda", ratio=0.5, allocation="global")
    assert not options.is_sequential
    evidence = collect_evidence(program, [options.criterion], [(x, None)])
    result = options.run(program, evidence)
    assert result.stats["masked"] == pytest.approx(result.stats["weights"] / 2, abs=1)


def test_chance_follows_the_seed() -> None:
    @dataclass(frozen=True)
    class Dice:
        name: ClassVar[str] = "dice"
        needs: ClassVar[frozenset[str]] = frozenset({"weights"})

        def score_elements(self, weight: Tensor, evidence: Evidence) -> Tensor:
            return torch.rand(weight.shape, generator=torch.Generator().manual_seed(evidence.seed))

    masks = [
        Sparsify(pattern="elements", ratio=0.5, criterion=Dice(), seed=seed).run(network()).program.masks["head.weight"]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_two_four_is_written_as_ever() -> None:
    """Programs of 2:4 name no pattern, as those of earlier versions."""
    program = Sparsify().run(network()).program
    assert program.patterns == {}
    assert all(has_pattern(program.pattern_of(name), mask) for name, mask in program.masks.items())
