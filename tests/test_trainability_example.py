"""A minute of examples/trainability: a small learning rate has not converged, and more epochs bring it closer."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / "examples" / "trainability"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"trainability_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_learning_rate_100_times_smaller_ends_far_lower(tmp_path: Path) -> None:
    run = example("run")
    setup = run.Setup(epochs=4, dense="step:0=0.1,3=0.01", prune_after=(3,), train_images=5000, test_images=2000)
    run.train_dense(setup, 0, str(tmp_path))
    large, small = (
        run.retrain(setup, run.Arm(f"P3F3,{rate}", 3, 3, f"step:0={rate}"), 0, str(tmp_path)).accuracy
        for rate in ("0.01", "0.0001")
    )
    # 19.8 to 24.0 points over seeds 0, 1, 2.
    assert 100 * (large - small) > 10


def test_published_schedules_are_scaled_exactly() -> None:
    run = example("run")
    assert run.scaled("P60F60,1e-3+60") == (12, "step:0=0.001,9=0.0001,10.5=1e-05")
    assert {arm.name for arm in run.published_arms()} >= {"scratch", "P30F90,1e-1 / 10", "P90F30,1e-4+270 / 10"}


def test_verdicts_follow_the_numbers(tmp_path: Path) -> None:
    run, claims = example("run"), example("claims")
    arms = run.published_arms() + run.same_schedule_arms()
    rising = {arm.name: number for number, arm in enumerate(arms)}

    def outcomes(sign: int) -> list[object]:
        def value(arm: str, sign: int) -> float:
            return 0.5 + sign * 0.01 * rising[arm]

        return [
            run.Outcome(arm.name, seed, arm.schedule, value(arm.name, sign), value(arm.name, 1), (0.1,))
            for arm in arms
            for seed in (0, 1)
        ]

    assert "(d) The gap to scratch shrinks with epochs: held" in claims.verdicts(outcomes(1))
    assert "(f) Trainability accuracy ranks networks within one schedule: held" in claims.verdicts(outcomes(1))
    falling = claims.verdicts(outcomes(-1))
    assert "(d) The gap to scratch shrinks with epochs: did not hold" in falling
    assert "(f) Trainability accuracy ranks networks within one schedule: did not hold" in falling
    claims.write_table(outcomes(1), tmp_path / "table.csv")
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + 2 * len(arms)
