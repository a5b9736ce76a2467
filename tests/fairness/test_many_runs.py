"""Many runs, and cards that would take all time or memory: as quick as their number allows."""

from itertools import combinations
from pathlib import Path

import pytest

from prunec.compiler.fairness import comparison_levels
from prunec.compiler.fairness.accuracy_difference import student_quantile
from prunec.compiler.fairness.amounts import Alike
from prunec.compiler.fairness.asked_once import AskedOnce, Reading
from prunec.compiler.fairness.card_reading import read_cards
from prunec.compiler.fairness.comparison_levels import PairLevels, compare_pair
from prunec.compiler.fairness.predicates import Predicate
from prunec.compiler.fairness.run_card import RunCard
from prunec.compiler.fairness.runs_comparison import compare
from prunec.passes.errors import InputError, UsageError

LITERATURE = Path(__file__).with_name("literature.yaml")
#: Nine lists of nine lists of nine lists ...
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n" for before, after in zip("abcdefg", "bcdefgh", strict=True)
)


def test_questions_are_asked_once_of_runs_that_they_can_t_tell_apart() -> None:
    asked = []

    def question(a: RunCard, b: RunCard) -> Predicate:
        asked.append((a.metric, b.metric))
        return Predicate(None, missing=(f"{a.name}: metric", f"{b.name}: metric"))

    cards = [RunCard(name=f"run {i}", metric=("top1", "top5", None)[i % 3]) for i in range(30)]
    once = AskedOnce(Reading(question, ("metric",)), cards)
    answers = [once(a, b) for a, b in combinations(cards, 2)]
    assert len(answers) == 435
    assert len(asked) == len(set(asked)) == 9
    assert answers[-1].missing == ("run 28: metric", "run 29: metric")


def test_a_question_can_t_read_a_field_that_it_doesn_t_name() -> None:
    cards = [RunCard(name="a"), RunCard(name="b")]
    once = AskedOnce(Reading(lambda a, b: Predicate(a.data == b.data), ("metric",)), cards)
    with pytest.raises(AttributeError):
        once(*cards)


def test_pairs_among_many_are_judged_as_pairs_alone() -> None:
    cards = read_cards(LITERATURE)
    levels = PairLevels(cards, Alike())
    for a, b in combinations(cards, 2):
        assert levels(a, b) == compare_pair(a, b)


def test_more_runs_than_can_be_compared_soon_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "runs.yaml"
    file.write_text("runs:\n" + "".join(f"- {{name: r{i}}}\n" for i in range(501)))
    with pytest.raises(InputError, match="has 501 runs, and at most 500"):
        read_cards(file)
    with pytest.raises(UsageError, match="at most 500 runs, got 501"):
        compare([RunCard(name=f"r{i}") for i in range(501)])


def test_three_hundred_runs_are_asked_about_as_few_times_as_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(reading: Reading) -> Reading:
        def question(a: RunCard, b: RunCard) -> Predicate:
            asked.append(reading.question.__name__)
            return reading.question(a, b)

        return Reading(question, reading.fields)

    monkeypatch.setattr(
        comparison_levels, "_QUESTIONS", {name: counted(q) for name, q in comparison_levels._QUESTIONS.items()}
    )
    first = read_cards(LITERATURE)[0]
    cards = [first.model_copy(update={"name": f"r{i}", "speedup": 2 + i / 1000}) for i in range(300)]
    assert len(compare(cards).pairs) == 44_850
    assert len(asked) == len(comparison_levels._QUESTIONS)


# Source: tables of Student's t, 97.5 % (NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2).
@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (100, 1.984)]
)
def test_quantiles_of_student_s_distribution(freedom: int, t: float) -> None:
    assert student_quantile(freedom) == pytest.approx(t, abs=6e-4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nfinetuning: {epochs: 1000000000, schedule: 'cosine:0.1'}", "at most 100000"),
        ("name: a\nfinetuning: {epochs: ten, schedule: 'cosine:0.1'}", "finetuning"),
        ("name: a\nfinetuning: {epochs: 3, learning_rates: [[0, 0.1], 5]}", "can't be read"),
        ("name: a\nbase: &b [*b]", "lies in"),
        (BOMB, "aliases stand for"),
        ("[" * 3000, "within each other"),
        ("name: 2025-02-30", "day is out of range"),
        ("name: " + "9" * 5000, "can't be read"),
        ("name: a\n" + "#" * (1 << 20), "at most"),
        ("\udce9", "can't be read"),
        ("name: [a", "is no YAML"),
    ],
)
def test_cards_beyond_any_use_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=said) as caught:
        read_cards(path)
    assert "card" in caught.value.message
    assert len(caught.value.message) < 2000


def test_epochs_may_be_written_as_yaml_takes_for_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text('name: a\nfinetuning: {epochs: 1e2, schedule: "cosine:0.1"}\n')
    assert read_cards(tmp_path / "a.yaml")[0].finetuning.epochs == 100
