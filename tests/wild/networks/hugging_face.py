"""What the families of transformers' networks have in common: how one is made of a configuration, and small sizes."""

from typing import Any

from torch import nn

from tests.wild.networks.wild_network import Family

#: Settings that most transformers of images take.
VISION: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 64,
    "patch_size": 16,
}
#: Settings that most encoders of text take.
TEXT: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
#: Settings that most decoders of text take.
DECODER: dict[str, Any] = {**TEXT, "num_key_value_heads": 2, "use_cache": False}


def transformers_family() -> Family:
    return Family("transformers")


def config(name: str, **settings: Any) -> Any:
    """A configuration of transformers.

    Args:
        name: Name of the class of configurations, as BertConfig.
        settings: What differs from its defaults.
    """
    import transformers

    return getattr(transformers, name)(**settings)


def model(architecture: str, **settings: Any) -> nn.Module:
    """A network of transformers with random weights.

    Args:
        architecture: name of its class.
        settings: what differs from the defaults of its configuration.
    """
    import transformers

    kind = getattr(transformers, architecture)
    network: nn.Module = kind(kind.config_class(**settings))
    return network
