"""Speech and sound of transformers: waveforms and spectrograms."""

from typing import Any

from tests.wild.networks.hugging_face import model, transformers_family
from tests.wild.networks.inputs import numbers, ones, tokens
from tests.wild.networks.wild_network import Built, called_with

_FAMILY = transformers_family()
NETWORKS = _FAMILY.networks

_WHISPER: dict[str, Any] = {
    "vocab_size": 128,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "num_mel_bins": 16,
    "max_source_positions": 32,
    "max_target_positions": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "use_cache": False,
}
_WAVE: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": (32, 32, 32),
    "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 2, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


@_FAMILY.add("whisper")
def whisper() -> Built:
    network = model("WhisperForConditionalGeneration", **_WHISPER)
    return called_with(network, input_features=numbers(16, 64), decoder_input_ids=tokens(8))


@_FAMILY.add("audio-spectrogram-transformer")
def audio_spectrogram_transformer() -> Built:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    network = model("ASTForAudioClassification", **sizes, max_length=64, num_mel_bins=32, num_labels=10)
    return called_with(network, numbers(64, 32))


@_FAMILY.add("wav2vec2")
def wav2vec2() -> Built:
    return called_with(model("Wav2Vec2ForCTC", **_WAVE), numbers(1600))


@_FAMILY.add("wavlm")
def wavlm() -> Built:
    return called_with(model("WavLMForCTC", **_WAVE, num_buckets=32, max_bucket_distance=64), numbers(1600))


@_FAMILY.add("wav2vec2-conformer")
def wav2vec2_conformer() -> Built:
    network = model("Wav2Vec2ConformerForCTC", **_WAVE, position_embeddings_type="relative", max_source_positions=128)
    return called_with(network, numbers(1600))


@_FAMILY.add("moonshine")
def moonshine() -> Built:
    network = model(
        "MoonshineForConditionalGeneration",
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        encoder_num_hidden_layers=1,
        decoder_num_hidden_layers=1,
        encoder_num_attention_heads=4,
        decoder_num_attention_heads=4,
        max_position_embeddings=64,
        use_cache=False,
    )
    return called_with(network, input_values=numbers(4000), attention_mask=ones(4000), decoder_input_ids=tokens(8))


@_FAMILY.add("fastspeech2-vocoder")
def fastspeech2_vocoder() -> Built:
    """HiFi-GAN: mel spectrograms to waveforms."""
    network = model(
        "FastSpeech2ConformerHifiGan",
        model_in_dim=16,
        upsample_initial_channel=64,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3, 5],
        resblock_dilation_sizes=[[1, 3], [1, 3]],
    )
    return called_with(network, numbers(20, 16))
