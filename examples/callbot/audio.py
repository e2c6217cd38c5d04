"""Sound as the telephone carries it: μ-law at 8,000 samples a second, and how to get there and back."""

from functools import cache
from math import gcd
from typing import Final

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]

PHONE_RATE: Final = 8_000
"""Samples a second on a telephone line; one byte each in μ-law."""
FRAME_MS: Final = 20
"""How much sound one ``media`` message of Twilio carries."""
FRAME_BYTES: Final = PHONE_RATE * FRAME_MS // 1_000
SILENCE: Final = b"\xff"
"""One sample of silence in μ-law."""

_BIAS: Final = 0x84
_CLIP: Final = 32_635


@cache
def _decoding() -> Samples:
    """What each of the 256 bytes sounds like (ITU-T G.711)."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    exponent, mantissa = (code >> 4) & 7, code & 0x0F
    magnitude = (((mantissa << 3) + _BIAS) << exponent) - _BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


@cache
def _encoding() -> NDArray[np.uint8]:
    """The byte of each of the 65,536 samples, by the sample's own bits."""
    sample = np.arange(65_536, dtype=np.int32).astype(np.uint16).view(np.int16).astype(np.int32)
    biased = np.minimum(np.abs(sample), _CLIP) + _BIAS
    exponent = np.floor(np.log2(biased)).astype(np.int32) - 7
    mantissa = (biased >> (exponent + 3)) & 0x0F
    sign = np.where(sample < 0, 0x80, 0)
    encoded: NDArray[np.uint8] = (~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8)
    return encoded


def mulaw_encode(samples: Samples) -> bytes:
    """16-bit samples as μ-law."""
    encoded: bytes = _encoding()[samples.view(np.uint16)].tobytes()
    return encoded


def mulaw_decode(data: bytes) -> Samples:
    """μ-law as 16-bit samples."""
    samples: Samples = _decoding()[np.frombuffer(data, dtype=np.uint8)]
    return samples


def frames(data: bytes) -> list[bytes]:
    """μ-law cut into frames of 20 ms, the last one filled up with silence."""
    pieces = [data[start : start + FRAME_BYTES] for start in range(0, len(data), FRAME_BYTES)]
    if pieces:
        pieces[-1] = pieces[-1].ljust(FRAME_BYTES, SILENCE)
    return pieces


def seconds_of(data: bytes) -> float:
    """How long μ-law takes to play."""
    return len(data) / PHONE_RATE


class Resampler:
    """Changes the sampling rate of sound that arrives in pieces, without a click where two pieces meet.

    A windowed-sinc low-pass at the lower of both rates, evaluated only where an output sample falls (polyphase).
    """

    ZERO_CROSSINGS: Final = 8

    def __init__(self, rate_in: int, rate_out: int) -> None:
        common = gcd(rate_in, rate_out)
        self._up, self._down = rate_out // common, rate_in // common
        cutoff = min(1.0, rate_out / rate_in)
        self._half = int(np.ceil(self.ZERO_CROSSINGS / cutoff))
        self._taps = np.arange(-self._half + 1, self._half + 1)
        distance = self._taps[None, :] - np.arange(self._up)[:, None] / self._up
        window = np.cos(np.pi / 2 * np.clip(distance / self._half, -1, 1)) ** 2
        kernels = np.sinc(distance * cutoff) * window
        self._kernels = kernels / kernels.sum(axis=1, keepdims=True)
        self._waiting = np.zeros(self._half - 1, dtype=np.float64)
        self._dropped = -(self._half - 1)
        self._received = 0
        self._produced = 0

    def feed(self, samples: Samples) -> Samples:
        """The output that is complete once `samples` have arrived."""
        self._received += len(samples)
        self._waiting = np.concatenate([self._waiting, samples.astype(np.float64)])
        reach = self._dropped + len(self._waiting) - self._half
        return self._produce(max(0, -(-reach * self._up // self._down)))

    def flush(self) -> Samples:
        """The rest, as if silence followed; the resampler is used up then."""
        self._waiting = np.concatenate([self._waiting, np.zeros(2 * self._half)])
        return self._produce(-(-self._received * self._up // self._down))

    def _produce(self, until: int) -> Samples:
        if until <= self._produced:
            return np.zeros(0, dtype=np.int16)
        position = np.arange(self._produced, until) * self._down
        whole, phase = position // self._up, position % self._up
        around = self._waiting[(whole - self._dropped)[:, None] + self._taps[None, :]]
        output = (around * self._kernels[phase]).sum(axis=1)
        self._produced = until
        keep_from = until * self._down // self._up - self._half + 1
        self._waiting = self._waiting[keep_from - self._dropped :]
        self._dropped = keep_from
        produced: Samples = np.clip(np.rint(output), -32_768, 32_767).astype(np.int16)
        return produced


def resample(samples: Samples, rate_in: int, rate_out: int) -> Samples:
    """Sound that is there as a whole, at another sampling rate."""
    resampler = Resampler(rate_in, rate_out)
    return np.concatenate([resampler.feed(samples), resampler.flush()])
