"""Networks as people have them, of packages that nobody chose with prunec in mind: small, with random weights."""

from collections.abc import Mapping
from types import MappingProxyType

from tests.wild.networks import (
    attention,
    audio,
    detectors,
    diffusion,
    features,
    graphs,
    hugging_face_decoders,
    hugging_face_dense,
    hugging_face_multimodal,
    hugging_face_sequences,
    hugging_face_speech,
    hugging_face_text,
    hugging_face_vision,
    image_text,
    medical,
    ocr,
    segmentation,
    super_resolution,
    time_series,
    torchvision_tasks,
)
from tests.wild.networks.wild_network import Built, WildNetwork

__all__ = ["NETWORKS", "Built", "WildNetwork"]

_FAMILIES: tuple[Mapping[str, WildNetwork], ...] = (
    hugging_face_vision.NETWORKS,
    hugging_face_dense.NETWORKS,
    hugging_face_text.NETWORKS,
    hugging_face_decoders.NETWORKS,
    hugging_face_multimodal.NETWORKS,
    hugging_face_speech.NETWORKS,
    hugging_face_sequences.NETWORKS,
    detectors.NETWORKS,
    torchvision_tasks.NETWORKS,
    segmentation.NETWORKS,
    medical.NETWORKS,
    diffusion.NETWORKS,
    features.NETWORKS,
    image_text.NETWORKS,
    ocr.NETWORKS,
    super_resolution.NETWORKS,
    audio.NETWORKS,
    time_series.NETWORKS,
    attention.NETWORKS,
    graphs.NETWORKS,
)


def _merged() -> Mapping[str, WildNetwork]:
    merged: dict[str, WildNetwork] = {}
    for family in _FAMILIES:
        if twice := merged.keys() & family.keys():
            raise ValueError(f"Two families have the same networks: {', '.join(sorted(twice))}.")
        merged.update(family)
    return MappingProxyType(merged)


#: The catalogue, by name.
NETWORKS: Mapping[str, WildNetwork] = _merged()
