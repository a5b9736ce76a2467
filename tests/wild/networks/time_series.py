"""Time series: tsai and pytorch_forecasting."""

import torch
from torch import Tensor

from tests.wild.networks.inputs import numbers, ones
from tests.wild.networks.wild_network import Built, Family, called_with

_TSAI = Family("tsai")
_FORECASTING = Family("pytorch_forecasting")

_CHANNELS, _CLASSES, _LENGTH = 3, 5, 60


def _series() -> Tensor:
    return numbers(_CHANNELS, _LENGTH)


@_TSAI.add("inception-time")
def inception_time() -> Built:
    from tsai.models.InceptionTime import InceptionTime

    return called_with(InceptionTime(_CHANNELS, _CLASSES, nf=8), _series())


@_TSAI.add("xception-time")
def xception_time() -> Built:
    from tsai.models.XceptionTime import XceptionTime

    return called_with(XceptionTime(_CHANNELS, _CLASSES, nf=8), _series())


@_TSAI.add("tst")
def tst() -> Built:
    from tsai.models.TST import TST

    network = TST(_CHANNELS, _CLASSES, _LENGTH, d_model=32, d_ff=64, n_heads=4, n_layers=2)
    return called_with(network, _series())


@_TSAI.add("omni-scale-cnn")
def omni_scale_cnn() -> Built:
    from tsai.models.OmniScaleCNN import OmniScaleCNN

    return called_with(OmniScaleCNN(_CHANNELS, _CLASSES, _LENGTH, layers=[256, 4096]), _series())


@_TSAI.add("lstm-fcn")
def lstm_fcn() -> Built:
    from tsai.models.RNN_FCN import MLSTM_FCN

    network = MLSTM_FCN(_CHANNELS, _CLASSES, _LENGTH, hidden_size=32, conv_layers=[32, 64, 32])
    return called_with(network, _series())


@_TSAI.add("tcn")
def tcn() -> Built:
    """In the older spelling of weight_norm, whose weights can't be copied once gradients have been recorded."""
    from tsai.models.TCN import TCN

    with torch.no_grad():
        network = TCN(_CHANNELS, _CLASSES, layers=[32, 32, 48])
    return called_with(network, _series())


@_TSAI.add("gmlp")
def gmlp() -> Built:
    from tsai.models.gMLP import gMLP

    network = gMLP(_CHANNELS, _CLASSES, _LENGTH, patch_size=4, d_model=32, d_ffn=64, depth=2)
    return called_with(network, _series())


@_TSAI.add("mwdn")
def mwdn() -> Built:
    from tsai.models.mWDN import mWDN

    return called_with(mWDN(_CHANNELS, _CLASSES, 64, levels=2, nf=8), numbers(_CHANNELS, 64))


@_FORECASTING.add("nhits")
def nhits() -> Built:
    from pytorch_forecasting.models.nhits.sub_modules import NHiTS

    network = NHiTS(
        context_length=24,
        prediction_length=8,
        output_size=[1],
        static_size=0,
        encoder_covariate_size=2,
        decoder_covariate_size=2,
        static_hidden_size=0,
        n_blocks=[1, 1],
        n_layers=[2, 2],
        hidden_size=[[64, 64], [64, 64]],
        pooling_sizes=[2, 1],
        downsample_frequencies=[2, 1],
        pooling_mode="max",
        interpolation_mode="linear",
        dropout=0.0,
        activation="ReLU",
        initialization="lecun_normal",
        batch_normalization=False,
        shared_weights=False,
        naive_level=True,
    )
    return called_with(
        network,
        encoder_y=numbers(24, 1),
        encoder_mask=ones(24).to(torch.float32),
        encoder_x_t=numbers(24, 2, seed=1),
        decoder_x_t=numbers(8, 2, seed=2),
        x_s=None,
    )


NETWORKS = {**_TSAI.networks, **_FORECASTING.networks}
