"""Retrainings with a known fault or none: the diagnosis names it, or says that it isn't known."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.recovery.planted import RIGHT, Case, Task, drawn, longest, truth

CASES = 16


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
def test_planted_faults_are_named_or_not_known(tmp_path: Path) -> None:
    task = Task(tmp_path, images=1500, seed=0)
    dense, counts, told = task.dense_accuracy(), Counter[str](), []
    best: dict[float, float] = {}
    for case in drawn(seed=0, count=CASES):
        outcome = task.run(case.pipeline)
        if case.ratio not in best:
            best[case.ratio] = longest(task, case.ratio)
        found, (true, near) = outcome.diagnosis, truth(dense, outcome.accuracy, best[case.ratio])
        word = "right" if found.verdict in RIGHT[true] else "not known" if found.verdict == "not known" else "wrong"
        counts["near a border" if near else word] += 1
        counts["blamed"] += not near and (true, found.verdict) == ("under-trained", "over-pruned")
        told.append(f"{case}: {outcome.accuracy:.1f} of {dense:.1f}, {true}, {found.verdict}, {found.evidence}")
    report = f"{counts}\n" + "\n".join(told)
    print(report)
    clear = CASES - counts["near a border"]
    assert clear >= CASES / 2, report
    assert counts["wrong"] <= 0.1 * clear, report
    assert counts["not known"] <= clear / 3, report
    assert counts["blamed"] <= 1, report


@pytest.mark.usefixtures("one_thread")
def test_a_tiny_rate_is_under_trained_and_nothing_is_blamed_without_a_probe(tmp_path: Path) -> None:
    task = Task(tmp_path, images=1000, seed=0)
    case = Case(0.75, "constant:0.0005", 2)
    found = task.run(case.pipeline)
    assert found.diagnosis.verdict == "under-trained"
    step = "recover{epochs=2,schedule=cosine:0.064,batch_size=50}"
    assert found.diagnosis.advice[0] == f"decay the learning rate to zero: {step}"
    blind = task.run(case.pipeline.replace("recover{", "recover{probe=0,"))
    assert blind.diagnosis.verdict == "not known"
    assert blind.accuracy == found.accuracy
