"""Networks of MONAI for volumes and slices."""

from tests.wild.networks.inputs import images, numbers, volumes
from tests.wild.networks.wild_network import Built, Family, called_with

_FAMILY = Family("monai")
NETWORKS = _FAMILY.networks


@_FAMILY.add("unet-3d")
def unet_3d() -> Built:
    from monai.networks.nets import UNet

    return called_with(UNet(3, 1, 2, channels=(8, 16, 32), strides=(2, 2), num_res_units=2), volumes(32))


@_FAMILY.add("dynunet-3d")
def dynunet_3d() -> Built:
    from monai.networks.nets import DynUNet

    network = DynUNet(
        3,
        1,
        2,
        kernel_size=[3, 3, 3],
        strides=[1, 2, 2],
        upsample_kernel_size=[2, 2],
        filters=[8, 16, 32],
        res_block=True,
    )
    return called_with(network, volumes(16))


@_FAMILY.add("attention-unet")
def attention_unet() -> Built:
    from monai.networks.nets import AttentionUnet

    return called_with(AttentionUnet(2, 1, 2, channels=(16, 32, 64), strides=(2, 2)), images(64, channels=1))


@_FAMILY.add("swin-unetr")
def swin_unetr() -> Built:
    from monai.networks.nets import SwinUNETR

    network = SwinUNETR(
        in_channels=1, out_channels=2, feature_size=12, spatial_dims=2, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4)
    )
    return called_with(network, images(64, channels=1))


@_FAMILY.add("unetr-3d")
def unetr_3d() -> Built:
    from monai.networks.nets import UNETR

    network = UNETR(1, 2, img_size=32, feature_size=8, hidden_size=64, mlp_dim=128, num_heads=4)
    return called_with(network, volumes(32))


@_FAMILY.add("segresnet-3d")
def segresnet_3d() -> Built:
    from monai.networks.nets import SegResNet

    return called_with(SegResNet(3, init_filters=8, blocks_down=(1, 1, 2), blocks_up=(1, 1)), volumes(16))


@_FAMILY.add("vit-3d")
def vit_3d() -> Built:
    from monai.networks.nets import ViT

    network = ViT(1, 16, 8, hidden_size=64, mlp_dim=128, num_layers=2, num_heads=4, classification=True)
    return called_with(network, volumes(16))


@_FAMILY.add("restormer")
def restormer() -> Built:
    from monai.networks.nets.restormer import Restormer

    network = Restormer(2, 1, 1, dim=16, heads=(1, 2, 2, 4), num_refinement_blocks=1)
    return called_with(network, images(32, channels=1))


@_FAMILY.add("mednext-3d")
def mednext_3d() -> Built:
    from monai.networks.nets import MedNeXt

    network = MedNeXt(
        3, init_filters=8, kernel_size=3, blocks_down=(1, 1), blocks_bottleneck=1, blocks_up=(1, 1), norm_type="group"
    )
    return called_with(network, volumes(16))


@_FAMILY.add("voxelmorph")
def voxelmorph() -> Built:
    """The network that gives a field of displacements; the warp comes after it."""
    from monai.networks.nets import VoxelMorphUNet

    network = VoxelMorphUNet(
        2, in_channels=2, unet_out_channels=16, channels=(16, 16, 32, 32), final_conv_channels=(16,)
    )
    return called_with(network, numbers(2, 32, 32))
