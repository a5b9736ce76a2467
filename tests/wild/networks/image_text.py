"""Images and text in one space: open_clip."""

from typing import Any

from tests.wild.networks.inputs import images, tokens
from tests.wild.networks.wild_network import Built, Family, called_with

_FAMILY = Family("open_clip")
NETWORKS = _FAMILY.networks

_VISION: dict[str, Any] = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 16, "image_size": 64}
_TEXT: dict[str, Any] = {"context_length": 16, "vocab_size": 128, "width": 64, "heads": 4, "layers": 2}


@_FAMILY.add("clip")
def clip() -> Built:
    from open_clip.model import CLIP

    return called_with(CLIP(32, _VISION, _TEXT, quick_gelu=True), images(64), tokens(16))


@_FAMILY.add("clip-resnet")
def clip_resnet() -> Built:
    """Images by the ResNet of CLIP, which ends in attention."""
    from open_clip.model import CLIP

    vision = {"layers": (1, 1, 1, 1), "width": 16, "head_width": 16, "image_size": 64}
    return called_with(CLIP(32, vision, _TEXT), images(64), tokens(16))


@_FAMILY.add("coca")
def coca() -> Built:
    from open_clip.coca_model import CoCa

    vision = {**_VISION, "attentional_pool": True, "attn_pooler_queries": 8, "attn_pooler_heads": 4}
    text = {**_TEXT, "embed_cls": True, "output_tokens": True}
    multimodal = {**_TEXT, "dim_head": 16, "n_queries": 8, "attn_pooler_heads": 4}
    vision["output_tokens"] = True
    network = CoCa(64, multimodal_cfg=multimodal, text_cfg=text, vision_cfg=vision)
    return called_with(network, images(64), tokens(16))
