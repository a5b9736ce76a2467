"""Encoders of text of transformers, and encoders with decoders."""

from typing import Any

import torch
from torch import Tensor

from tests.wild.networks.hugging_face import TEXT, model, transformers_family
from tests.wild.networks.inputs import images, integers, ones, padded, tokens
from tests.wild.networks.wild_network import Built, called_with

_FAMILY = transformers_family()
NETWORKS = _FAMILY.networks

_LENGTH = 16


def _on_text(architecture: str, **settings: Any) -> Built:
    """A network called as text is: token ids and their mask, by name."""
    return called_with(model(architecture, **settings), input_ids=tokens(_LENGTH), attention_mask=ones(_LENGTH))


@_FAMILY.add("bert")
def bert() -> Built:
    return _on_text("BertForSequenceClassification", **TEXT, num_labels=5)


@_FAMILY.add("bert-padded")
def bert_padded() -> Built:
    """With attention written out, a padded sample and types of tokens."""
    return called_with(
        model("BertForSequenceClassification", attn_implementation="eager", **TEXT, num_labels=5),
        input_ids=tokens(_LENGTH),
        attention_mask=padded(_LENGTH, 6),
        token_type_ids=integers(_LENGTH, high=2),
    )


@_FAMILY.add("albert")
def albert() -> Built:
    return _on_text("AlbertForSequenceClassification", **TEXT, embedding_size=32, num_labels=5)


@_FAMILY.add("deberta-v2")
def deberta_v2() -> Built:
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}
    return _on_text("DebertaV2ForSequenceClassification", **TEXT, **relative, num_labels=5)


@_FAMILY.add("mpnet")
def mpnet() -> Built:
    return _on_text("MPNetForSequenceClassification", **TEXT, num_labels=5)


@_FAMILY.add("modernbert")
def modernbert() -> Built:
    windows = {"local_attention": 8, "layer_types": ["full_attention", "sliding_attention"]}
    return _on_text("ModernBertForSequenceClassification", **TEXT, **windows, pad_token_id=0, num_labels=5)


@_FAMILY.add("fnet")
def fnet() -> Built:
    sizes = {key: value for key, value in TEXT.items() if key != "num_attention_heads"}
    network = model("FNetForSequenceClassification", **sizes, num_labels=5)
    return called_with(network, input_ids=tokens(_LENGTH))


@_FAMILY.add("squeezebert")
def squeezebert() -> Built:
    return _on_text("SqueezeBertForSequenceClassification", **TEXT, embedding_size=64, num_labels=5)


@_FAMILY.add("mobilebert")
def mobilebert() -> Built:
    sizes = {**TEXT, "embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32}
    return _on_text("MobileBertForSequenceClassification", **sizes, num_labels=5)


@_FAMILY.add("convbert")
def convbert() -> Built:
    return _on_text("ConvBertForSequenceClassification", **TEXT, embedding_size=64, num_labels=5)


@_FAMILY.add("funnel")
def funnel() -> Built:
    sizes = {"vocab_size": 128, "block_sizes": [1, 1], "d_model": 64, "n_head": 4, "d_head": 16, "d_inner": 128}
    return _on_text("FunnelForSequenceClassification", **sizes, num_labels=5)


@_FAMILY.add("xlnet")
def xlnet() -> Built:
    sizes = {"vocab_size": 128, "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 128}
    return _on_text("XLNetForSequenceClassification", **sizes, num_labels=5)


@_FAMILY.add("t5-encoder")
def t5_encoder() -> Built:
    sizes = {"vocab_size": 128, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    return _on_text("T5EncoderModel", **sizes, feed_forward_proj="gated-gelu")


@_FAMILY.add("bart")
def bart() -> Built:
    network = model(
        "BartForConditionalGeneration",
        vocab_size=128,
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_position_embeddings=64,
        use_cache=False,
    )
    return called_with(
        network, input_ids=tokens(_LENGTH), attention_mask=ones(_LENGTH), decoder_input_ids=tokens(8, seed=1)
    )


@_FAMILY.add("layoutlmv3")
def layoutlmv3() -> Built:
    sizes = {**TEXT, "coordinate_size": 8, "shape_size": 16, "max_2d_position_embeddings": 128, "input_size": 64}
    corners = integers(_LENGTH, 2, high=60)
    network = model("LayoutLMv3ForTokenClassification", **sizes, num_labels=5)
    return called_with(
        network, input_ids=tokens(_LENGTH), bbox=_boxes(corners), attention_mask=ones(_LENGTH), pixel_values=images(64)
    )


def _boxes(corners: Tensor) -> Tensor:
    """Boxes of 20 x 10 with these upper left corners: (2, length, 4)."""
    return torch.cat([corners, corners + torch.tensor([20, 10])], dim=-1)
