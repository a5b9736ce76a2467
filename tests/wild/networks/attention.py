"""Transformers written by hand with einops: vit_pytorch and x_transformers."""

from tests.wild.networks.inputs import images, ones, tokens
from tests.wild.networks.wild_network import Built, Family, called_with

_VIT = Family("vit_pytorch")
_X = Family("x_transformers")


@_VIT.add("cait")
def cait() -> Built:
    from vit_pytorch.cait import CaiT

    network = CaiT(
        image_size=64, patch_size=16, num_classes=10, dim=64, depth=2, cls_depth=1, heads=4, mlp_dim=128, dim_head=16
    )
    return called_with(network, images(64))


@_VIT.add("cct")
def cct() -> Built:
    from vit_pytorch.cct import CCT

    network = CCT(
        img_size=(32, 32),
        embedding_dim=64,
        n_conv_layers=2,
        kernel_size=3,
        stride=1,
        padding=1,
        num_layers=2,
        num_heads=4,
        mlp_ratio=2.0,
        num_classes=10,
        positional_embedding="learnable",
    )
    return called_with(network, images(32))


@_VIT.add("nest")
def nest() -> Built:
    from vit_pytorch.nest import NesT

    network = NesT(
        image_size=32,
        patch_size=4,
        num_classes=10,
        dim=32,
        heads=2,
        num_hierarchies=2,
        block_repeats=(1, 1),
        dim_head=16,
    )
    return called_with(network, images(32))


@_VIT.add("max-vit")
def max_vit() -> Built:
    from vit_pytorch.max_vit import MaxViT

    network = MaxViT(num_classes=10, dim=32, depth=(1, 1), dim_head=16, dim_conv_stem=16, window_size=4)
    return called_with(network, images(64))


@_VIT.add("cross-vit")
def cross_vit() -> Built:
    from vit_pytorch.cross_vit import CrossViT

    network = CrossViT(
        image_size=64,
        num_classes=10,
        sm_dim=32,
        lg_dim=64,
        sm_patch_size=8,
        sm_enc_heads=2,
        sm_enc_mlp_dim=64,
        sm_enc_dim_head=16,
        lg_patch_size=16,
        lg_enc_depth=1,
        lg_enc_heads=4,
        lg_enc_mlp_dim=128,
        lg_enc_dim_head=16,
        cross_attn_depth=1,
        cross_attn_heads=2,
        cross_attn_dim_head=16,
        depth=1,
    )
    return called_with(network, images(64))


@_VIT.add("xcit")
def xcit() -> Built:
    from vit_pytorch.xcit import XCiT

    network = XCiT(
        image_size=64, patch_size=16, num_classes=10, dim=64, depth=2, cls_depth=1, heads=4, mlp_dim=128, dim_head=16
    )
    return called_with(network, images(64))


@_X.add("encoder")
def encoder() -> Built:
    """RMS norms, GLU and rotary embeddings, called with a mask."""
    from x_transformers import Encoder, TransformerWrapper

    layers = Encoder(dim=64, depth=2, heads=4, attn_dim_head=16, use_rmsnorm=True, ff_glu=True, rotary_pos_emb=True)
    network = TransformerWrapper(num_tokens=128, max_seq_len=32, attn_layers=layers)
    return called_with(network, tokens(16), mask=ones(16).bool())


@_X.add("decoder")
def decoder() -> Built:
    """Linear biases of attention by distance, shared keys and values."""
    from x_transformers import Decoder, TransformerWrapper

    layers = Decoder(dim=64, depth=2, heads=4, attn_dim_head=16, alibi_pos_bias=True, attn_kv_heads=2)
    network = TransformerWrapper(num_tokens=128, max_seq_len=32, attn_layers=layers, use_abs_pos_emb=False)
    return called_with(network, tokens(16))


@_X.add("vision")
def vision() -> Built:
    from x_transformers import Encoder, ViTransformerWrapper

    layers = Encoder(dim=64, depth=2, heads=4, attn_dim_head=16)
    return called_with(
        ViTransformerWrapper(image_size=64, patch_size=16, num_classes=10, attn_layers=layers), images(64)
    )


NETWORKS = {**_VIT.networks, **_X.networks}
