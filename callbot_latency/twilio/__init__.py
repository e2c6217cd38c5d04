"""Twilio's Media Streams and webhooks: when the caller and the bot spoke, from the messages that pass anyway."""

from .caller import DEFAULT_UNCERTAINTY_MS
from .mulaw import AUDIBLE_AMPLITUDE
from .reasons import REASONS
from .stream import TwilioMediaStream
from .webhook import call_sid_of, custom_parameters, stream_parameters
from .websocket import measured_websocket

__all__ = [
    "AUDIBLE_AMPLITUDE",
    "DEFAULT_UNCERTAINTY_MS",
    "REASONS",
    "TwilioMediaStream",
    "call_sid_of",
    "custom_parameters",
    "measured_websocket",
    "stream_parameters",
]
