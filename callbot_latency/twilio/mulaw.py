"""Audio as Twilio carries it: 8-bit µ-law in base64."""

import binascii
from typing import Final

__all__ = ["AUDIBLE_AMPLITUDE", "base64_length", "decoded", "silent_samples"]

AUDIBLE_AMPLITUDE: Final = 132
"""The smallest amplitude that counts as audible, of 32,124: -48 dB of full scale, the second segment of µ-law.

Below lie the noise of a synthesiser's silence and the line's own; speech begins above.
"""


def _amplitude(sample: int) -> int:
    """The absolute linear value of a µ-law sample (ITU-T G.711)."""
    bits = ~sample & 0x7F
    return ((((bits & 0x0F) << 3) + 0x84) << (bits >> 4)) - 0x84


_SILENT: Final = bytes(sample for sample in range(256) if _amplitude(sample) < AUDIBLE_AMPLITUDE)


def silent_samples(audio: bytes) -> int:
    """How many samples there are before the first audible one; all of them where there is none."""
    return len(audio) - len(audio.lstrip(_SILENT))


def base64_length(payload: str) -> int:
    """How many bytes `payload` holds, without decoding it."""
    whole = len(payload) * 3 // 4
    return whole - 2 if payload.endswith("==") else whole - 1 if payload.endswith("=") else whole


def decoded(payload: str) -> bytes | None:
    """The bytes of `payload`, or None where it is no base64."""
    try:
        return binascii.a2b_base64(payload)
    except ValueError:  # binascii.Error is one, and so is what is not ASCII
        return None
