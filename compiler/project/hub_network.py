"""Networks of Hugging Face folders, built by transformers and given weights that prunec has read.

transformers sees the parsed config.json and tensors, not the folder; nothing is fetched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunec.compiler.project.checkpoint_file import HUB_CONFIG
from prunec.compiler.project.hub_folder import HubFolder, read_hub_folder
from prunec.compiler.project.reading import read_safetensors
from prunec.passes.archives import untrusted
from prunec.passes.boundary import reading
from prunec.passes.errors import InputError, MissingDependencyError
from prunec.passes.user_calls import user_code_borders
from prunec.runtime.offline import fetching_nothing

#: A network may have this many times the values that are stored (weights that are tied are stored once), and these.
_MOST_GROWTH, _FREE_VALUES = 3, 1 << 22
_SHOWN = 3


def load_hub_network(folder: Path, trust: bool) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the network of a Hugging Face folder, with its weights in it, in eval mode, and notes on it.

    Args:
        folder: A folder with a config.json and safetensors.
        trust: Whether Python files of the folder may run, where its config.json names classes in them.

    Raises:
        MissingDependencyError: transformers isn't installed.
        InputError: The folder can't be read, needs code that isn't trusted, or has no weights for all of the network.
        UnsupportedModelError: Its weights are quantised, or those of an adapter.
    """
    hub = read_hub_folder(folder)
    if hub.code and not trust:
        raise untrusted(folder, f"a network whose class is code in the folder, {hub.code[0]}")
    transformers = _transformers()
    state: dict[str, Tensor] = {}
    for path in hub.weights:
        state |= read_safetensors(path)
    what = f"Folder {folder}"
    with reading(what, "a network of transformers"), _silent(transformers), fetching_nothing(), user_code_borders():
        config, kind = _classes(transformers, hub)
        cached = bool(getattr(config, "use_cache", False))
        if cached:
            config.use_cache = False
        _check_size(folder, kind, config, state)
        options = {"dtype": torch.float32, "ignore_mismatched_sizes": True, "local_files_only": True}  # told below
        module, told = kind.from_pretrained(None, config=config, state_dict=state, output_loading_info=True, **options)
    notes = ("Its cache of keys and values is off.",) if cached else ()
    return module.eval(), (*_notes(hub, state, told), *notes)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError(
            "Folders of Hugging Face are read by transformers, which isn't installed.",
            hint="Install it: pip install 'prunec[transformers]'",
        ) from error
    return transformers


@contextmanager
def _silent(transformers: Any) -> Iterator[None]:
    """Keep reports of transformers, whose content errors and notes tell, and its progress bars off the screen."""
    logging = transformers.utils.logging
    verbosity, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _classes(transformers: Any, hub: HubFolder) -> tuple[Any, Any]:
    """The configuration, and the class of the network: transformers' own, or where trusted the folder's."""
    if hub.code:
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        options = {"trust_remote_code": True, "local_files_only": True}
        config = transformers.AutoConfig.from_pretrained(str(hub.folder), **options)
        named = [text for text in hub.code if text.rpartition(".")[2] == hub.architecture]
        if named:
            return config, get_class_from_dynamic_module(named[0], str(hub.folder), local_files_only=True)
    else:
        config = transformers.AutoConfig.for_model(hub.model_type)
        config = type(config).from_dict(hub.config)
    kind = getattr(transformers, hub.architecture, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise InputError(
            f"{hub.folder}: transformers {transformers.__version__} has no network {hub.architecture}.",
            hint="Install the version that it was saved with, or newer.",
        )
    return config, kind


def _check_size(folder: Path, kind: Any, config: Any, state: dict[str, Tensor]) -> None:
    """Refuse a configuration of a network much larger than the weights, before it takes memory."""
    with torch.device("meta"):
        asked = sum(each.numel() for each in kind(config).state_dict().values())
    stored = sum(each.numel() for each in state.values())
    if asked > _MOST_GROWTH * stored + _FREE_VALUES:
        raise InputError(f"{folder}: its config.json describes a network of {asked:,} values; {stored:,} are stored.")


def _notes(hub: HubFolder, state: dict[str, Tensor], told: dict[str, Any]) -> tuple[str, ...]:
    """What was done to the weights, or the error that the folder doesn't hold all of them."""
    missing, other = sorted(told["missing_keys"]), [str(each[0]) for each in told["mismatched_keys"]]
    if missing or other or told.get("error_msgs"):
        words = {"missing": missing, "of another shape": other, "not read": list(told.get("error_msgs") or ())}
        problems = "; ".join(f"{len(each)} {kind}: {_first(each)}" for kind, each in words.items() if each)
        raise InputError(
            f"{hub.folder}: the weights don't fit {hub.architecture}: {problems}.",
            hint="transformers would draw them at random. Save the network, as it was trained, with save_pretrained().",
        )
    notes = [f"The network is {hub.architecture}, as {hub.folder / HUB_CONFIG} says."]
    if unused := sorted(told["unexpected_keys"]):
        notes.append(f"Not the network's, and not used: {_first(unused)}.")
    types = {str(each.dtype).removeprefix("torch.") for each in state.values() if each.is_floating_point()}
    if types - {"float32"}:
        notes.append(f"Weights stored as {', '.join(sorted(types - {'float32'}))} were converted to float32.")
    return tuple(notes)


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
