"""Networks of transformers that take images and text."""

from typing import Any

from tests.wild.networks.hugging_face import TEXT, VISION, model, transformers_family
from tests.wild.networks.inputs import images, ones, tokens
from tests.wild.networks.wild_network import Built, called_with

_FAMILY = transformers_family()
NETWORKS = _FAMILY.networks

_LENGTH = 16
_CLIP: dict[str, Any] = {
    "text_config": {**TEXT, "projection_dim": 32, "eos_token_id": 2},
    "vision_config": {**VISION, "projection_dim": 32},
    "projection_dim": 32,
}


def _text() -> dict[str, object]:
    return {"input_ids": tokens(_LENGTH), "attention_mask": ones(_LENGTH)}


@_FAMILY.add("clip")
def clip() -> Built:
    return called_with(model("CLIPModel", **_CLIP), **_text(), pixel_values=images(64))


@_FAMILY.add("clip-vision")
def clip_vision() -> Built:
    return called_with(model("CLIPVisionModelWithProjection", **VISION, projection_dim=32), images(64))


@_FAMILY.add("siglip")
def siglip() -> Built:
    network = model("SiglipModel", text_config={**TEXT, "projection_size": 64}, vision_config=VISION)
    return called_with(network, input_ids=tokens(_LENGTH), pixel_values=images(64))


@_FAMILY.add("clipseg")
def clipseg() -> Built:
    vision = {**VISION, "num_hidden_layers": 3}
    network = model(
        "CLIPSegForImageSegmentation",
        text_config=_CLIP["text_config"],
        vision_config=vision,
        projection_dim=32,
        extract_layers=[0, 1, 2],
        reduce_dim=32,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=64,
    )
    return called_with(network, **_text(), pixel_values=images(64))


@_FAMILY.add("blip-retrieval")
def blip_retrieval() -> Built:
    text = {**TEXT, "encoder_hidden_size": 64, "projection_dim": 32}
    network = model(
        "BlipForImageTextRetrieval",
        text_config=text,
        vision_config=VISION,
        projection_dim=32,
        image_text_hidden_size=32,
    )
    return called_with(network, **_text(), pixel_values=images(64))


@_FAMILY.add("owlvit")
def owlvit() -> Built:
    network = model(
        "OwlViTForObjectDetection",
        text_config={**TEXT, "max_position_embeddings": _LENGTH},
        vision_config=VISION,
        projection_dim=64,
    )
    return called_with(network, **_text(), pixel_values=images(64))


@_FAMILY.add("llava")
def llava() -> Built:
    """The 16 patches of an image stand in the text as 16 tokens of their own."""
    import torch

    image_token = 127
    text = {"model_type": "llama", **TEXT, "num_key_value_heads": 2, "use_cache": False}
    network = model(
        "LlavaForConditionalGeneration",
        text_config=text,
        vision_config={"model_type": "clip_vision_model", **VISION},
        image_token_index=image_token,
        vision_feature_layer=-1,
    )
    words = tokens(8, vocabulary=image_token)
    patches = torch.full((2, 16), image_token)
    return called_with(
        network, input_ids=torch.cat([patches, words], 1), attention_mask=ones(24), pixel_values=images(64)
    )
