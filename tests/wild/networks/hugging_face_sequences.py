"""Time series and video of transformers."""

from tests.wild.networks.hugging_face import VISION, model, transformers_family
from tests.wild.networks.inputs import numbers
from tests.wild.networks.wild_network import Built, called_with

_FAMILY = transformers_family()
NETWORKS = _FAMILY.networks


@_FAMILY.add("patchtst")
def patchtst() -> Built:
    network = model(
        "PatchTSTForPrediction",
        num_input_channels=3,
        context_length=32,
        patch_length=8,
        patch_stride=8,
        d_model=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=64,
        prediction_length=8,
        loss="mse",
    )
    return called_with(network, numbers(32, 3))


@_FAMILY.add("patchtsmixer")
def patchtsmixer() -> Built:
    network = model(
        "PatchTSMixerForPrediction",
        num_input_channels=3,
        context_length=32,
        patch_length=8,
        patch_stride=8,
        d_model=32,
        num_layers=2,
        expansion_factor=2,
        mode="mix_channel",
        gated_attn=True,
        prediction_length=8,
    )
    return called_with(network, past_values=numbers(32, 3))


@_FAMILY.add("timesformer")
def timesformer() -> Built:
    network = model("TimesformerForVideoClassification", **VISION, num_frames=4, num_labels=10)
    return called_with(network, numbers(4, 3, 64, 64))


@_FAMILY.add("videomae")
def videomae() -> Built:
    network = model("VideoMAEForVideoClassification", **VISION, num_frames=4, tubelet_size=2, num_labels=10)
    return called_with(network, pixel_values=numbers(4, 3, 64, 64))
