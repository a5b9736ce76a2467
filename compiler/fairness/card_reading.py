"""Run cards from where runs are written down: report.json, a bundle, or a YAML file of published rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from prunec.compiler.bundle.bundle_names import REPORT
from prunec.compiler.bundle.bundle_reader import intact_bundle
from prunec.compiler.fairness.report_cards import arm_cards, report_card, seed_card
from prunec.compiler.fairness.run_card import MAX_RUNS, RunCard
from prunec.compiler.fairness.yaml_text import read_yaml
from prunec.compiler.report.report import MAX_REPORT_BYTES, Report
from prunec.passes.boundary import file_bytes, reading, shortened
from prunec.passes.errors import InputError, UsageError, did_you_mean

__all__ = ["read_cards", "report_card"]

_MAX_YAML_BYTES = 1 << 20
#: Stands before the name of one run of a file, as in ``RUN.bundle#scratch-b``.
_ONE_OF = "#"


def read_cards(path: Path) -> list[RunCard]:
    """The runs that a file, or a bundle's folder, describes: of a report its own, then its control arms.

    Args:
        path: A bundle, a report.json, or YAML: a mapping with the keys of `RunCard`, or ``runs``, a list of them, and
            ``common``, the keys that they share. ``PATH#NAME`` is one of its runs: a control arm of a report, such as
            ``#scratch-b``, one of its seeds, such as ``#seed-1``, or a run of a YAML file.

    Raises:
        InputError: The file can't be read, is none of these, or is a bundle whose files differ from its manifest.
        UsageError: It has no run of that name.
    """
    whole, is_one, name = str(path).rpartition(_ONE_OF)
    if is_one and not path.exists():
        return [_named(Path(whole), name)]
    return _read(path)


def _read(path: Path) -> list[RunCard]:
    file, text = _text(path)
    with reading(str(file)):
        try:
            if file.suffix == ".json":
                report, name = Report.from_json(text), path.stem
                return [report_card(report, name), *arm_cards(report, name)]
            return _yaml_cards(read_yaml(text), file.stem)
        except yaml.YAMLError as error:
            raise InputError(f"{file} is no YAML: {' '.join(str(error).split())}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = shortened(".".join(map(str, first["loc"])) or "the whole file")
            raise InputError(f"{file} describes no run: {where}: {shortened(first['msg'])}.") from error


def _named(path: Path, name: str) -> RunCard:
    """The run of this name in a file."""
    cards = _read(path)
    named = {card.name.removeprefix(f"{card.arm_of}: "): card for card in cards}
    file, text = _text(path)
    if file.suffix == ".json":
        report, main = Report.from_json(text), path.stem
        named = {key: card for key, card in named.items() if card.arm_of}
        named |= {f"seed-{run.seed}": seed_card(report, f"{main}: seed {run.seed}", run) for run in report.runs}
    if name not in named:
        raise UsageError(f"{path} has no run {name!r}.", hint=did_you_mean(name, named))
    return named[name].model_copy(update={"arm_of": None})


def _text(path: Path) -> tuple[Path, str]:
    file = intact_bundle(path).folder / REPORT if path.is_dir() else path
    with reading(str(file), hint="Give a bundle, a report.json or a YAML file."):
        limit = MAX_REPORT_BYTES if file.suffix == ".json" else _MAX_YAML_BYTES
        return file, file_bytes(file, limit, str(file)).decode()


def _yaml_cards(document: Any, name: str) -> list[RunCard]:
    if not isinstance(document, Mapping):
        got = type(document).__name__
        raise InputError(f"{name}: expected a mapping with the fields of a run, or with runs, got {got}.")
    if "runs" not in document:
        return [RunCard.model_validate({"name": name, **document})]
    if unknown := sorted(map(str, document.keys() - {"common", "runs"})):
        raise InputError(f"{name}: beside the list runs only common may stand, got {', '.join(unknown)}.")
    runs, common = document["runs"], document.get("common") or {}
    if not isinstance(runs, list) or not all(isinstance(fields, Mapping) for fields in (common, *runs)):
        raise InputError(f"{name}: runs must be a list of mappings with the fields of a run, and common one of them.")
    if len(runs) > MAX_RUNS:
        raise InputError(f"{name} has {len(runs)} runs, and at most {MAX_RUNS} are compared.", hint="Split the file.")
    return [RunCard.model_validate(_merged(common, run)) for run in runs]


def _merged(common: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's fields over the common ones, part by part; a schedule replaces another one."""
    result = dict(common)
    for key, value in run.items():
        shared = result.get(key)
        if isinstance(value, Mapping) and isinstance(shared, Mapping):
            is_scheduled = {"schedule", "learning_rates"} & value.keys()
            replaced = {"schedule", "epochs", "learning_rates"} if is_scheduled else set()
            result[key] = {k: v for k, v in shared.items() if k not in replaced} | dict(value)
        else:
            result[key] = value
    return result
