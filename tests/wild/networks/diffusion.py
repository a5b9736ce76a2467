"""Networks of diffusers: denoisers that take a time step, autoencoders."""

from typing import Any

import torch
from torch import Tensor

from tests.wild.networks.inputs import BATCH, images, numbers, ones
from tests.wild.networks.wild_network import Built, Family, called_with

_FAMILY = Family("diffusers")
NETWORKS = _FAMILY.networks

_CROSS_ATTENTION: dict[str, Any] = {
    "in_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (32, 64),
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
}


def _steps() -> Tensor:
    return torch.tensor([3, 700])


@_FAMILY.add("unet2d-condition")
def unet2d_condition() -> Built:
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel(
        sample_size=16, out_channels=4, up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **_CROSS_ATTENTION
    )
    return called_with(network, numbers(4, 16, 16), _steps(), numbers(7, 32))


@_FAMILY.add("controlnet")
def controlnet() -> Built:
    from diffusers import ControlNetModel

    network = ControlNetModel(conditioning_embedding_out_channels=(8, 16), **_CROSS_ATTENTION)
    return called_with(
        network,
        sample=numbers(4, 16, 16),
        timestep=_steps(),
        encoder_hidden_states=numbers(7, 32),
        controlnet_cond=images(32),
    )


@_FAMILY.add("unet1d")
def unet1d() -> Built:
    from diffusers import UNet1DModel

    network = UNet1DModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        time_embedding_type="positional",
        use_timestep_embedding=True,
        down_block_types=("DownResnetBlock1D", "DownResnetBlock1D"),
        up_block_types=("UpResnetBlock1D",),
        mid_block_type="MidResTemporalBlock1D",
        out_block_type="OutConv1DBlock",
        block_out_channels=(32, 64),
        act_fn="silu",
        norm_num_groups=8,
        layers_per_block=1,
        downsample_each_block=False,
    )
    return called_with(network, numbers(4, 64), _steps())


@_FAMILY.add("dit")
def dit() -> Built:
    from diffusers import DiTTransformer2DModel

    network = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=4,
        num_layers=2,
        sample_size=16,
        patch_size=2,
        num_embeds_ada_norm=20,
        norm_num_groups=8,
    )
    return called_with(network, numbers(4, 16, 16), timestep=_steps(), class_labels=torch.tensor([1, 2]))


@_FAMILY.add("pixart")
def pixart() -> Built:
    from diffusers import PixArtTransformer2DModel

    network = PixArtTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        num_layers=2,
        norm_num_groups=8,
        cross_attention_dim=64,
        caption_channels=32,
        sample_size=16,
        use_additional_conditions=False,
    )
    return called_with(
        network,
        numbers(4, 16, 16),
        encoder_hidden_states=numbers(7, 32),
        timestep=_steps(),
        encoder_attention_mask=ones(7),
    )


@_FAMILY.add("sd3")
def sd3() -> Built:
    from diffusers import SD3Transformer2DModel

    network = SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=64,
        pooled_projection_dim=32,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )
    return called_with(
        network,
        hidden_states=numbers(4, 16, 16),
        encoder_hidden_states=numbers(7, 32),
        pooled_projections=numbers(32),
        timestep=_steps(),
    )


@_FAMILY.add("sana")
def sana() -> Built:
    from diffusers import SanaTransformer2DModel

    network = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=4,
        attention_head_dim=16,
        num_layers=2,
        num_cross_attention_heads=4,
        cross_attention_head_dim=16,
        cross_attention_dim=64,
        caption_channels=32,
        sample_size=16,
    )
    return called_with(network, numbers(4, 16, 16), numbers(7, 32), _steps())


@_FAMILY.add("prior")
def prior() -> Built:
    from diffusers import PriorTransformer

    network = PriorTransformer(
        num_attention_heads=4, attention_head_dim=16, num_layers=2, embedding_dim=32, num_embeddings=7
    )
    return called_with(
        network,
        hidden_states=numbers(32),
        timestep=_steps(),
        proj_embedding=numbers(32, seed=1),
        encoder_hidden_states=numbers(7, 32),
        attention_mask=torch.ones(BATCH, 7, dtype=torch.bool),
    )


@_FAMILY.add("autoencoder-kl")
def autoencoder_kl() -> Built:
    from diffusers import AutoencoderKL

    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(32, 64),
        norm_num_groups=8,
    )
    return called_with(network, images(32))


@_FAMILY.add("autoencoder-dc")
def autoencoder_dc() -> Built:
    from diffusers import AutoencoderDC

    network = AutoencoderDC(
        latent_channels=8,
        attention_head_dim=8,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(16, 32),
        decoder_block_out_channels=(16, 32),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
    )
    return called_with(network, images(32))
