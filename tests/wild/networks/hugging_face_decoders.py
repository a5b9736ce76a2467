"""Decoders of text of transformers: language models."""

from typing import Any

from tests.wild.networks.hugging_face import DECODER, TEXT, model, transformers_family
from tests.wild.networks.inputs import ones, tokens
from tests.wild.networks.wild_network import Built, called_with

_FAMILY = transformers_family()
NETWORKS = _FAMILY.networks

_GPT2: dict[str, Any] = {"vocab_size": 128, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}


def _on_text(architecture: str, **settings: Any) -> Built:
    return called_with(model(architecture, **settings), input_ids=tokens(16), attention_mask=ones(16))


@_FAMILY.add("llama")
def llama() -> Built:
    return _on_text("LlamaForCausalLM", **DECODER)


@_FAMILY.add("mixtral")
def mixtral() -> Built:
    return _on_text("MixtralForCausalLM", **DECODER, num_local_experts=4, num_experts_per_tok=2)


@_FAMILY.add("gemma2")
def gemma2() -> Built:
    return _on_text("Gemma2ForCausalLM", **DECODER, head_dim=16, sliding_window=8, query_pre_attn_scalar=16)


@_FAMILY.add("gpt2")
def gpt2() -> Built:
    return _on_text("GPT2LMHeadModel", **_GPT2, use_cache=False)


@_FAMILY.add("gpt-neox")
def gpt_neox() -> Built:
    return _on_text("GPTNeoXForCausalLM", **TEXT, use_cache=False)


@_FAMILY.add("opt")
def opt() -> Built:
    sizes = {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 128}
    return _on_text("OPTForCausalLM", **sizes, word_embed_proj_dim=32, max_position_embeddings=64, use_cache=False)


@_FAMILY.add("bloom")
def bloom() -> Built:
    return _on_text("BloomForCausalLM", vocab_size=128, hidden_size=64, n_layer=2, n_head=4, use_cache=False)


@_FAMILY.add("mamba")
def mamba() -> Built:
    sizes = {"vocab_size": 128, "hidden_size": 64, "state_size": 8, "num_hidden_layers": 2}
    return called_with(model("MambaForCausalLM", **sizes, use_cache=False), input_ids=tokens(16))
