"""Larger and cleaner images: spandrel and super_image."""

from typing import Any

from torch import nn

from tests.wild.networks.inputs import images
from tests.wild.networks.wild_network import Built, Family, called_with

_SPANDREL = Family("spandrel")
_SUPER_IMAGE = Family("super_image")


@_SPANDREL.add("swinir")
def swinir() -> Built:
    from spandrel.architectures.SwinIR.__arch.SwinIR import SwinIR

    network = SwinIR(
        img_size=16,
        window_size=8,
        embed_dim=24,
        depths=[2, 2],
        num_heads=[4, 4],
        mlp_ratio=2,
        upscale=2,
        upsampler="pixelshuffledirect",
    )
    return called_with(network, images(16))


@_SPANDREL.add("esrgan")
def esrgan() -> Built:
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    return called_with(RRDBNet(num_filters=16, num_blocks=2, scale=4), images(16))


@_SPANDREL.add("nafnet")
def nafnet() -> Built:
    from spandrel.architectures.NAFNet.__arch.NAFNet_arch import NAFNet

    network = NAFNet(width=16, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1])
    return called_with(network, images(32))


@_SPANDREL.add("safmn")
def safmn() -> Built:
    from spandrel.architectures.SAFMN.__arch.safmn import SAFMN

    return called_with(SAFMN(dim=32, n_blocks=2, upscaling_factor=2), images(32))


@_SPANDREL.add("span")
def span() -> Built:
    from spandrel.architectures.SPAN.__arch.span import SPAN

    return called_with(SPAN(num_in_ch=3, num_out_ch=3, feature_channels=24, upscale=2), images(24))


@_SPANDREL.add("hat")
def hat() -> Built:
    from spandrel.architectures.HAT.__arch.HAT import HAT

    network = HAT(
        img_size=16,
        embed_dim=24,
        depths=(2, 2),
        num_heads=(2, 2),
        window_size=8,
        squeeze_factor=6,
        mlp_ratio=2.0,
        upscale=2,
        num_feat=16,
    )
    return called_with(network, images(16))


@_SPANDREL.add("dat")
def dat() -> Built:
    from spandrel.architectures.DAT.__arch.DAT import DAT

    network = DAT(
        img_size=16, embed_dim=32, split_size=[4, 8], depth=[2], num_heads=[2], expansion_factor=2.0, upscale=2
    )
    return called_with(network, images(16))


@_SPANDREL.add("omnisr")
def omnisr() -> Built:
    from spandrel.architectures.OmniSR.__arch.OmniSR import OmniSR

    return called_with(OmniSR(num_feat=32, window_size=8, up_scale=2), images(16))


def _super_image(name: str, **settings: Any) -> nn.Module:
    import super_image

    network: nn.Module = getattr(super_image, f"{name}Model")(getattr(super_image, f"{name}Config")(**settings))
    return network


@_SUPER_IMAGE.add("edsr")
def edsr() -> Built:
    return called_with(_super_image("Edsr", scale=2, n_resblocks=2, n_feats=32), images(24))


@_SUPER_IMAGE.add("carn")
def carn() -> Built:
    return called_with(_super_image("Carn", scale=2), images(24))


@_SUPER_IMAGE.add("pan")
def pan() -> Built:
    return called_with(_super_image("Pan", scale=2, nf=24, unf=16, nb=2), images(24))


NETWORKS = {**_SPANDREL.networks, **_SUPER_IMAGE.networks}
