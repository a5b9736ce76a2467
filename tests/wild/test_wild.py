"""Networks of the catalogue that span its kinds and need few packages; `make wild` takes all of them."""

from pathlib import Path

import pytest

from tests.wild import packages
from tests.wild.networks import NETWORKS
from tests.wild.networks.environment import folder
from tests.wild.rows import STAGES
from tests.wild.workers import Workers

#: Packages beyond those of the environment, by network.
SAMPLE: dict[str, tuple[str, ...]] = {
    "efficientnet_pytorch/efficientnet-b0": ("efficientnet_pytorch",),
    "facenet_pytorch/mtcnn-onet": ("facenet_pytorch", "requests", "urllib3", "charset_normalizer", "certifi"),
    "segmentation_models_pytorch/manet": ("segmentation_models_pytorch",),
    "spandrel/esrgan": ("spandrel", "einops"),
    "spandrel/nafnet": ("spandrel", "einops"),
    "timm/hgnetv2-features": (),
    "timm/vit-features": (),
    "transformers/bert": ("transformers", "tokenizers", "regex"),
    "transformers/clip": ("transformers", "tokenizers", "regex"),
    "transformers/whisper": ("transformers", "tokenizers", "regex"),
    "vit_pytorch/cct": ("vit_pytorch", "einops"),
    "vit_pytorch/max-vit": ("vit_pytorch", "einops"),
}
WITH_ENGINE = frozenset({"spandrel/nafnet", "timm/vit-features", "transformers/clip"})
LIMIT_S = 240


@pytest.mark.long
@pytest.mark.parametrize("name", SAMPLE)
def test_network(name: str, tmp_path: Path) -> None:
    packages.install(folder(), SAMPLE[name])
    network = NETWORKS[name]
    row = Workers(tmp_path, folder(), WITH_ENGINE, LIMIT_S).examine(name, network.package)
    assert not row.failures
    assert row.outcomes.keys() | {"engine"} == STAGES.keys()
    assert ("engine" in row.outcomes) == (name in WITH_ENGINE)
    assert row.figures["macs_cut"] > 0.2
