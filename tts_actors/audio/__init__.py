"""Audio, pure: backends' replies to PCM, PCM to outputs. No network, no Ray, no event loop.

The way of the samples: :func:`prepare_clip` (a reply becomes a clip), :func:`wav_bytes` and
:func:`pcm_of_wav` (a clip is stored and read back), :func:`pause_samples` (what goes between clips),
:func:`open_encoder` or :func:`encode_file` (what the caller gets). :func:`tone` stands in for a
voice in tests.
"""

from tts_actors.audio.encoders import (
    MEDIA_TYPES,
    OUTPUT_FORMATS,
    StreamEncoder,
    encode_file,
    file_encoder,
    open_encoder,
    require_format,
)
from tts_actors.audio.pauses import DEFAULT_PAUSES, Pauses, pause_samples
from tts_actors.audio.pcm import Pcm
from tts_actors.audio.takes import (
    DEFAULT_TAKE_POLICY,
    TakePolicy,
    check_take,
    decode_take,
    prepare_clip,
    trim_and_fade,
)
from tts_actors.audio.tone import tone
from tts_actors.audio.wav import WAV_HEADER_BYTES, pcm_of_wav, wav_bytes, wav_header

__all__ = [
    "DEFAULT_PAUSES",
    "DEFAULT_TAKE_POLICY",
    "MEDIA_TYPES",
    "OUTPUT_FORMATS",
    "WAV_HEADER_BYTES",
    "Pauses",
    "Pcm",
    "StreamEncoder",
    "TakePolicy",
    "check_take",
    "decode_take",
    "encode_file",
    "file_encoder",
    "open_encoder",
    "pause_samples",
    "pcm_of_wav",
    "prepare_clip",
    "require_format",
    "tone",
    "trim_and_fade",
    "wav_bytes",
    "wav_header",
]
