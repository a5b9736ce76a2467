from pathlib import Path

import pytest

from prunec.calibration.config import DataConfig
from prunec.compiler.project.config import CONFIG_NAME, Config, find_config, load_config
from prunec.passes.errors import UsageError

WHOLE = """
[model]
factory = "model:resnet"
input = [1, 28, 28]
[data]
train = "npz:data.npz"
test = "npz:data.npz"
mean = [0.5]
std = [0.25]
augment = ["flip", "shift:2"]
loss = "model:loss"
[recipe]
seed = 3
[recipe.prune-filters]
speedup = 2.0
[recipe.sparsify]
[recipe.recover]
epochs = 5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / CONFIG_NAME
    path.write_text(text)
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, WHOLE))
    assert config.model.factory == "model:resnet"
    assert config.model.input == ((1, 28, 28),)
    assert config.data is not None
    assert config.data.sources() == DataConfig(
        train="npz:data.npz", test="npz:data.npz", mean=(0.5,), std=(0.25,), augment=("flip", "shift:2")
    )
    assert config.data.loss == "model:loss"
    assert config.recipe.seed == 3
    assert config.recipe.by_step == {"prune-filters": {"speedup": 2.0}, "sparsify": {}, "recover": {"epochs": 5}}
    assert config.folder == tmp_path.resolve()


def test_everything_is_optional(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, ""))
    assert config.model_dump() == Config().model_dump()
    assert config.recipe.by_step == {}
    assert load_config(None).path is None


def test_several_inputs(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "[model]\ninput = [[3, 8, 8], [10]]"))
    assert config.model.input == ((3, 8, 8), (10,))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[modle]\n", ["'modle'", "Did you mean 'model'"]),
        ("[model]\nfactroy = 'a:b'", ["[model]", "'factroy'", "Did you mean 'factory'"]),
        ("[data]\ntrain = 'npz:a'\ntest = 'npz:a'\naugmnet = []", ["[data]", "Did you mean 'augment'"]),
        ("[recipe.prune-filter]\nratio = 0.5", ["[recipe]", "'prune-filter'", "Did you mean 'prune-filters'"]),
        ("[data]\ntest = 'npz:a'", ["[data]", "needs a value for 'train'"]),
        ("[model]\nfactory = 'resnet'", ["module:callable", "'resnet'"]),
        ("[model]\ninput = [0, 28]", ["at least 1"]),
        ("[recipe]\nseed = 'x'", ["seed", "'x'"]),
        ("[recipe]\nby_step = 3", ["[recipe]", "'by_step' is unknown", "Did you mean 'steps'?"]),
        ("[recipe.by_step]\n", ["[recipe]", "'by_step' is unknown"]),
        ("[recipe]\nseed = -1", ["seed", "-1"]),
        ("[recipe]\nseed = 9223372036854775808", ["seed", "9223372036854775807"]),
        ("[model]\ninput = [1, 99999999999]", ["input", "at most 2147483647"]),
        ("[model]\npretraining = {epochs = 0, schedule = 'cosine:0.1'}", ["pretraining", "none of them"]),
        ("[model]\npretraining = {epochs = 2, schedule = 'cosin:0.1'}", ["pretraining", "'cosin:0.1'"]),
        ("[recipe]\npipeline = 'sparsify'\n[recipe.recover]\nepochs = 1", ["both a pipeline and a table"]),
        ("[model\n", ["not valid TOML"]),
        ("a = 1\nb = 2", ["1 more problem"]),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(write(tmp_path, text))
    message = str(caught.value)
    assert CONFIG_NAME in message
    assert "pydantic" not in message
    for part in parts:
        assert part in message


def test_a_value_is_named_once(tmp_path: Path) -> None:
    for text, value in (("[model]\nfactory = 'resnet'", "'resnet'"), ("[model]\ninput = 3", "3")):
        with pytest.raises(UsageError) as caught:
            load_config(write(tmp_path, text))
        assert str(caught.value).removeprefix(str(tmp_path)).count(value) == 1
    with pytest.raises(UsageError) as caught:
        load_config(write(tmp_path, "[model]\npretraining = {epochs = 2, schedule = 'cosin:0.1'}"))
    assert "a table" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / CONFIG_NAME
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid TOML"):
        load_config(path)


def test_the_first_file_found_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, beside, other = (tmp_path / name for name in ("here", "beside", "other"))
    for folder in (here, beside, other):
        folder.mkdir()
    monkeypatch.chdir(here)
    checkpoint = beside / "model.pt"
    assert find_config(checkpoint) is None
    write(here, "")
    assert find_config(checkpoint) == here / CONFIG_NAME
    write(beside, "")
    assert find_config(checkpoint) == beside / CONFIG_NAME
    asked = write(other, "")
    assert find_config(checkpoint, asked) == asked
    with pytest.raises(UsageError, match="doesn't exist"):
        find_config(checkpoint, other / "nothing.toml")
