"""One table of the places that options have in a comparison of runs: of prunec's own steps, ``[data]`` and `Settings`.

Options of criteria and training hooks, and of plug-ins' steps, state theirs in their classes (`prunec.passes.places`).
"""

from collections.abc import Mapping
from dataclasses import fields

from prunec.compiler.recovery.recover_options import Recover
from prunec.passes.allocation.goals import GOALS
from prunec.passes.places import BASE, COMPRESSION, METHOD, PRUNING, RETRAINING, TASK, without_effect

_CHANCE = without_effect("chance, which the deviation over seeds tells of")
_LATENCY = without_effect("it is about measuring latency, and accuracy is compared")
_ENGINE = without_effect("it is about the engine, and accuracy is compared as PyTorch measures it")
_LIMIT = without_effect("a limit of what passes, which changes nothing of what is made")
_SHOWN = without_effect("it decides what is shown or stored of a run, not what is done")
_SPEED = without_effect("the same arithmetic, in another order or place")
_WHERE = without_effect("where the data lie: their content is compared by its fingerprint")
_NAME = without_effect("a name: content decides by its fingerprint where both runs have one")
_FURTHER = without_effect("further runs beside this one")
_PROBED = without_effect("it is about the diagnosis; a probe trains a copy whose weights are thrown away")
_STRUCTURE = without_effect("what it removes, and when, is compared")
_DRAWN = without_effect("it draws weights, which are compared by their fingerprint, or as a run of their own")
_BY_RATES = without_effect("the epochs and exact learning rates that it gives are compared")

#: The options of a training, what the project says of its loss, its images and the part of them that it is of, and
#: the fingerprint of weights that it was rewound to.
_RECOVER: Mapping[str, str] = {
    "epochs": _BY_RATES,
    "schedule": _BY_RATES,
    "warmup": _BY_RATES,
    **dict.fromkeys(("optimizer", "momentum", "nesterov", "betas", "eps"), RETRAINING),
    **dict.fromkeys(("weight_decay", "decay_norms_and_biases", "clip_norm", "ema"), RETRAINING),
    **dict.fromkeys(("batch_size", "accumulate", "precision", "sync_batchnorm", "keep", "early"), RETRAINING),
    **dict.fromkeys(("label_smoothing", "distill", "distill_weight", "hooks"), RETRAINING),
    **dict.fromkeys(("loss", "augment", "split", "processes", "early_sha256"), RETRAINING),
    "channels_last": _SPEED,
    "compile": _SPEED,
    "probe": _PROBED,
    "over_pruned_points": _PROBED,
}

#: Step -> option -> place. A step's own name is the place of its presence.
STEP_PLACES: Mapping[str, Mapping[str, str]] = {
    "pretrain": {
        **dict.fromkeys(("pretrain", "epochs", "schedule", "seed"), BASE),
        "keep_step": without_effect("weights that a training goes back to are compared by their fingerprint"),
    },
    "recover": {"recover": _BY_RATES, **_RECOVER},
    "fold-parameters": {"fold-parameters": RETRAINING},
    "prune-filters": {
        "prune-filters": _STRUCTURE,
        **dict.fromkeys(("attention", "grouped", "for_module"), COMPRESSION),
        **dict.fromkeys(
            ("ratio", *GOALS, "plan", "allocation", "depth", "criterion", "round_to", "min_channels"), METHOD
        ),
        **dict.fromkeys(("residual_streams", "inexact_groups", "ignore", "freeze"), METHOD),
        "samples": PRUNING,
        "seed": _CHANCE,
    },
    "decompose": {
        "decompose": COMPRESSION,
        **dict.fromkeys(("ratio", "rank", "speedup", "round_to", "ignore"), METHOD),
    },
    "permute": {"permute": METHOD, "seconds": METHOD, "ignore": METHOD, "seed": _CHANCE},
    "sparsify": {
        "sparsify": _STRUCTURE,
        "pattern": COMPRESSION,
        **dict.fromkeys(("criterion", "ratio", "ratio_of_rest", "until", "allocation", "ignore"), METHOD),
        "samples": PRUNING,
        "seed": _CHANCE,
    },
    "calibrate": {
        **dict.fromkeys(("calibrate", "method", "percentile", "samples", "keep"), COMPRESSION),
        **dict.fromkeys(("keep_macs", "equalize", "smooth", "rounding"), COMPRESSION),
        **dict.fromkeys(("max_drop_points", "max_output_error"), COMPRESSION),
    },
    "re-estimate-batchnorm": {"re-estimate-batchnorm": RETRAINING, "samples": RETRAINING},
}

#: Options of ``[data]``; those at the task show in the report's data, and in what its fingerprints cover.
DATA_PLACES: Mapping[str, str] = {
    **dict.fromkeys(("train", "test"), _WHERE),
    "name": _NAME,
    **dict.fromkeys(("mean", "std", "resize", "crop"), TASK),
    **dict.fromkeys(("validation_fraction", "limit_train", "limit_test", "split_seed"), TASK),
    "augment": RETRAINING,
}

SETTINGS_PLACES: Mapping[str, str] = {
    **dict.fromkeys(("pretraining", "pretraining_optimizer"), BASE),
    "optimizers": RETRAINING,
    "early": RETRAINING,
    "seed": _CHANCE,
    "seeds": _FURTHER,
    "controls": _FURTHER,
    **dict.fromkeys(("module", "initialise"), _DRAWN),
    "resume": without_effect("a resumed training is the same one, bit for bit"),
    "save_steps": _SHOWN,
    "tensorboard": _SHOWN,
    "command": _SHOWN,
    "print_after": _SHOWN,
    "progress": _SHOWN,
    "verify_each": without_effect("it checks what steps claim, and changes nothing"),
    "model_name": _NAME,
    **dict.fromkeys(("threads", "latency_batch", "latency_runs", "cpu_latency"), _LATENCY),
    "cost_model": _STRUCTURE,
    **dict.fromkeys(("build_engine", "engine_options"), _ENGINE),
    **dict.fromkeys(("max_drop_points", "min_speedup", "max_latency_ms", "max_size_mb"), _LIMIT),
    **dict.fromkeys(("require_sparse_percent", "gates"), _LIMIT),
    **dict.fromkeys(("allow_unknown", "allow_noop", "strict"), _LIMIT),
    **dict.fromkeys(
        ("allow_implausible", "stated_accuracy"), without_effect("it is asked of the data, not done to them")
    ),
}

#: Option in a ledger -> its name on cards, where that is another.
CARD_NAMES: Mapping[str, str] = {"augment": "augmentation"}
#: What the project says of a training, beside the options of `Recover`.
_OF_THE_PROJECT = ("loss", "augment", "split", "processes")
#: Every option that must be known of a training: "the retraining is the same" says that all of these are.
TRAINING_OPTIONS = tuple(
    CARD_NAMES.get(name, name)
    for name in (*(option.name for option in fields(Recover)), *_OF_THE_PROJECT)
    if STEP_PLACES[Recover.name].get(name) == RETRAINING and name != "hooks"
)
