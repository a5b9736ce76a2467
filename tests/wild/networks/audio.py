"""Speech and music: torchaudio, Asteroid, Demucs."""

import torch

from tests.wild.networks.environment import torchaudio_module
from tests.wild.networks.inputs import numbers
from tests.wild.networks.wild_network import Built, Family, called_with

_TORCHAUDIO = Family("torchaudio")
_ASTEROID = Family("asteroid")
_DEMUCS = Family("demucs")


@_TORCHAUDIO.add("conv-tasnet")
def conv_tasnet() -> Built:
    network = torchaudio_module("conv_tasnet").ConvTasNet(
        num_sources=2,
        enc_kernel_size=16,
        enc_num_feats=32,
        msk_kernel_size=3,
        msk_num_feats=16,
        msk_num_hidden_feats=32,
        msk_num_layers=3,
        msk_num_stacks=2,
    )
    return called_with(network, numbers(1, 800))


@_TORCHAUDIO.add("conformer")
def conformer() -> Built:
    network = torchaudio_module("conformer").Conformer(
        input_dim=32, num_heads=4, ffn_dim=64, num_layers=2, depthwise_conv_kernel_size=7
    )
    return called_with(network, numbers(20, 32), torch.tensor([20, 14]))


@_TORCHAUDIO.add("deepspeech")
def deepspeech() -> Built:
    network = torchaudio_module("deepspeech").DeepSpeech(n_feature=16, n_hidden=64, n_class=29)
    return called_with(network, numbers(1, 20, 16))


@_TORCHAUDIO.add("wavernn")
def wavernn() -> Built:
    hop, frames, kernel = 6, 12, 5
    network = torchaudio_module("wavernn").WaveRNN(
        upsample_scales=[2, 3],
        n_classes=16,
        hop_length=hop,
        n_res_block=2,
        n_rnn=32,
        n_fc=32,
        kernel_size=kernel,
        n_freq=16,
        n_hidden=32,
        n_output=32,
    )
    return called_with(network, numbers(1, (frames - kernel + 1) * hop), numbers(1, 16, frames))


@_ASTEROID.add("conv-tasnet")
def asteroid_conv_tasnet() -> Built:
    from asteroid.models import ConvTasNet

    network = ConvTasNet(n_src=2, n_repeats=1, n_blocks=3, bn_chan=16, hid_chan=32, skip_chan=16, n_filters=32)
    return called_with(network, numbers(1, 800))


@_ASTEROID.add("dprnn-tasnet")
def dprnn_tasnet() -> Built:
    from asteroid.models import DPRNNTasNet

    network = DPRNNTasNet(n_src=2, bn_chan=16, hid_size=16, chunk_size=20, n_repeats=1, n_filters=32)
    return called_with(network, numbers(1, 800))


@_ASTEROID.add("sudormrf")
def sudormrf() -> Built:
    from asteroid.models.sudormrf import SuDORMRFImprovedNet

    network = SuDORMRFImprovedNet(n_src=2, bn_chan=16, num_blocks=2, upsampling_depth=3, n_filters=32)
    return called_with(network, numbers(1, 800))


@_DEMUCS.add("demucs")
def demucs() -> Built:
    from demucs.demucs import Demucs

    network = Demucs(sources=["a", "b"], channels=8, depth=3, resample=False, lstm_layers=0, dconv_mode=0)
    return called_with(network, numbers(2, 4000))


@_DEMUCS.add("demucs-lstm")
def demucs_lstm() -> Built:
    from demucs.demucs import Demucs

    network = Demucs(sources=["a", "b"], channels=8, depth=2, resample=False, lstm_layers=1, dconv_mode=1)
    return called_with(network, numbers(2, 2000))


NETWORKS = {**_TORCHAUDIO.networks, **_ASTEROID.networks, **_DEMUCS.networks}
