"""Audio as Twilio carries it: 8-bit µ-law in base64."""

import binascii
from typing import Final

__all__ = ["AUDIBLE_AMPLITUDE", "base64_length", "leading_silence", "silent_samples"]

AUDIBLE_AMPLITUDE: Final = 132
"""The smallest amplitude that counts as audible, of 32,124: -48 dB of full scale, the second segment of µ-law.

Below lie the noise of a synthesiser's silence and the line's own; speech begins above.
"""


def _amplitude(sample: int) -> int:
    """The absolute linear value of a µ-law sample (ITU-T G.711)."""
    bits = ~sample & 0x7F
    return ((((bits & 0x0F) << 3) + 0x84) << (bits >> 4)) - 0x84


_SLICE: Final = 1024
"""Characters of base64 that are decoded at a time; a multiple of four, which hold three samples."""
_DIGITAL_SILENCE: Final = "/" * _SLICE
"""A slice of 0xFF."""
_SILENT: Final = bytes(sample for sample in range(256) if _amplitude(sample) < AUDIBLE_AMPLITUDE)


def silent_samples(audio: bytes) -> int:
    """How many samples there are before the first audible one; all of them where there is none."""
    return len(audio) - len(audio.lstrip(_SILENT))


def base64_length(payload: str) -> int:
    """How many bytes `payload` holds, without decoding it."""
    whole = len(payload) * 3 // 4
    return whole - 2 if payload.endswith("==") else whole - 1 if payload.endswith("=") else whole


def leading_silence(payload: str) -> int | None:
    """How many samples `payload` has before the first audible one; None where it has none, or is no base64.

    No more of it is decoded than that takes: a first message may hold many seconds.
    """
    for place in range(0, len(payload), _SLICE):
        if payload.startswith(_DIGITAL_SILENCE, place):
            continue
        audio = _decoded(payload[place : place + _SLICE])
        if audio is None:
            return None
        silent = silent_samples(audio)
        if silent < len(audio):
            return place // 4 * 3 + silent
    return None


def _decoded(payload: str) -> bytes | None:
    try:
        return binascii.a2b_base64(payload)
    except ValueError:  # binascii.Error is one, and so is what is not ASCII
        return None
