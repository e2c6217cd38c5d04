"""A media stream tells when the caller and the bot spoke, as exactly as Twilio's messages allow."""

import base64
import json
from typing import Any

import pytest

from callbot_latency.timeline import Anchor, BargeIn
from callbot_latency.twilio import (
    AUDIBLE_AMPLITUDE,
    REASONS,
    TwilioMediaStream,
    call_sid_of,
    custom_parameters,
    stream_parameters,
)
from callbot_latency.twilio.mulaw import base64_length, leading_silence, silent_samples
from tests.support.subprocesses import ROOT
from tests.support.twilio_script import LOUD, MS, SILENT, Remembered, Script, payload, start_message


@pytest.fixture
def call() -> Script:
    """A call that has just begun."""
    return Script()


# -- ids --------------------------------------------------------------------------------------------------------------


def test_start_names_call_and_stream() -> None:
    """The ids and the TwiML's parameters are those of the message `start`."""
    script = Script(started=False)
    assert (script.stream.call_sid, script.stream.stream_sid, script.stream.custom_parameters) == (None, None, {})
    script.stream.on_message(start_message(traceparent="00-1-2-01"))
    assert (script.stream.call_sid, script.stream.stream_sid) == ("CA1", "MZ1")
    assert script.stream.custom_parameters == {"traceparent": "00-1-2-01"}


@pytest.mark.parametrize("form", [json.dumps, lambda m: json.dumps(m).encode(), dict])
def test_a_message_is_taken_in_any_form(form: Any) -> None:
    """A dict, a string and bytes tell the same."""
    script = Script(started=False)
    script.stream.on_message(form(start_message()))
    assert script.stream.call_sid == "CA1"


def test_a_second_start_of_the_same_stream_changes_nothing(call: Script) -> None:
    """What was said before it is not forgotten."""
    call.at(100).say(20, "m")
    call.stream.on_message(start_message())
    call.at(150).returned("m")
    assert call.timeline.times("playback_started") == [130]
    assert call.timeline.reasons == []


def test_a_second_call_on_one_connection_is_not_told_to_the_first(call: Script) -> None:
    """The first call is over, and the second has no timeline until it is given one."""
    first, second = call.timeline, Remembered()
    call.at(500)
    call.stream.on_message(start_message("MZ2", "CA2"))
    assert first.times("hung_up") == [500]
    assert (call.stream.call_sid, call.stream.stream_sid, call.stream.timeline) == ("CA2", "MZ2", None)
    call.stream.timeline = second
    call.at(900).stream.speech_ended(source="stt_final")
    assert first.times("speech_ended") == []
    assert second.times("speech_ended") == [900]


def test_a_second_stream_of_the_same_call_goes_on_with_its_timeline(call: Script) -> None:
    """The stream began anew, and the call did not end."""
    call.at(500)
    call.stream.on_message(start_message("MZ2"))
    call.at(900).stream.speech_ended(source="stt_final")
    assert call.timeline.times("hung_up") == []
    assert call.timeline.times("speech_ended") == [900]


def test_a_message_of_another_stream_is_not_taken_for_ours(call: Script) -> None:
    """Two streams of one call, handed to one object: the second one's marks are not the first one's."""
    call.at(100).say(20, "m")
    call.at(150).stream.on_message({"event": "mark", "streamSid": "MZ9", "mark": {"name": "m"}})
    assert call.timeline.times("playback_started") == []
    assert call.timeline.reasons == ["other_stream"]


def test_two_streams_of_one_call_are_measured_side_by_side() -> None:
    """Each has its own object; what one says is not the other's."""
    one, two = Script(), Script(started=False)
    two.stream.on_message(start_message("MZ2"))
    one.at(100).say(20, "m")
    two.at(100).stream.on_message({"event": "mark", "streamSid": "MZ2", "mark": {"name": "m"}})
    one.at(150).returned("m")
    assert one.timeline.times("playback_started") == [130]
    assert two.timeline.reasons == ["unknown_mark"]


# -- the media clock and the caller's speech --------------------------------------------------------------------------


def test_the_media_clock_follows_the_timestamps(call: Script) -> None:
    """Not the number of messages: one that is missing, and one of another length, are accounted for."""
    call.at(25).hear(0)
    call.at(85).hear(60, length_ms=10)
    assert call.stream.media_ms == 70


def test_the_media_clock_follows_the_bytes_where_there_are_no_timestamps(call: Script) -> None:
    """Frames of 20 and of 40 ms are 60 ms."""
    call.at(25).hear(length_ms=20)
    call.at(65).hear(length_ms=40)
    assert call.stream.media_ms == 60


def test_what_the_caller_hears_is_no_part_of_their_audio(call: Script) -> None:
    """A stream of both tracks has the bot's voice in it."""
    call.at(25).hear(0, track="outbound")
    assert call.stream.media_ms == 0


def test_a_message_that_waited_does_not_move_the_end_of_speech(call: Script) -> None:
    """The least delay of the last seconds maps the audio to the clock."""
    for frame in range(50):
        call.at(30 + 20 * frame).hear(20 * frame)  # 10 ms after the frame's end
    call.at(2_000).hear(1_000)
    call.stream.speech_ended(source="stt_word_end", audio_ms=1_010)
    assert call.timeline.times("speech_ended") == [1_020]


def test_a_timestamp_that_goes_back_begins_the_clock_anew(call: Script) -> None:
    """What was learnt of the earlier clock says nothing of the new one."""
    call.at(60_000).hear(59_000)
    call.at(60_020).hear(0)
    call.stream.speech_ended(source="twilio_media_clock")
    assert call.timeline.times("speech_ended") == [60_020]


def test_vad_end_is_taken_back_by_its_hangover(call: Script) -> None:
    """Reported at 1,000 ms after 300 ms of silence: speech ended at 700."""
    call.at(1_000).stream.speech_ended(source="vad_minus_hangover", hangover_ms=300, uncertainty_ms=30)
    assert call.timeline.told[-1] == (
        "speech_ended",
        700,
        {"source": Anchor.VAD_MINUS_HANGOVER, "uncertainty_ms": 30, "reported_ms": 1_000},
    )


def test_last_frame_is_when_the_last_audio_came(call: Script) -> None:
    """The bot may notice later."""
    call.at(400).hear(380)
    call.at(900).stream.speech_ended(source=Anchor.LAST_FRAME)
    assert call.timeline.times("speech_ended") == [400]


@pytest.mark.parametrize("source", list(Anchor))
def test_each_source_has_an_uncertainty(source: Anchor, call: Script) -> None:
    """Where the bot says none, what is usual for it."""
    call.at(400).hear(380)
    call.stream.speech_ended(source=source, audio_ms=390)
    assert call.timeline.last("speech_ended")["uncertainty_ms"] > 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"source": "stt_word_end"}, "no_anchor"),
        ({"source": "guess"}, "unknown_anchor"),
        ({"source": []}, "unknown_anchor"),
        ({"source": "stt_word_end", "audio_ms": 5_000}, "impossible_anchor"),
        ({"source": "stt_word_end", "audio_ms": -1}, "impossible_anchor"),
        ({"source": "stt_word_end", "audio_ms": "x"}, "impossible_anchor"),
        ({"source": "stt_final", "hangover_ms": -1}, "impossible_anchor"),
        ({"source": "stt_final", "hangover_ms": float("nan")}, "impossible_anchor"),
        ({"source": "stt_final", "uncertainty_ms": -1}, "impossible_anchor"),
        ({"source": "vad_minus_hangover", "hangover_ms": 1_500}, "impossible_anchor"),
        ({"source": "vad_minus_hangover", "hangover_ms": 700}, "impossible_anchor"),
    ],
)
def test_an_end_of_speech_that_cannot_be_is_counted(said: dict[str, Any], reason: str, call: Script) -> None:
    """Missing, in the future, before the speech or the stream: never told as a number."""
    call.at(400).hear(380)
    call.stream.speech_started()
    call.at(1_000).stream.speech_ended(**said)
    assert call.timeline.times("speech_ended") == []
    assert call.timeline.reasons == [reason]


def test_the_end_of_an_earlier_speech_is_stale(call: Script) -> None:
    """A recogniser that repeats the word of the turn before does not end this one."""
    for frame in range(100):
        call.at(20 + 20 * frame).hear(20 * frame)
    call.stream.speech_ended(source="stt_word_end", audio_ms=1_500)
    call.stream.speech_ended(source="stt_word_end", audio_ms=1_500)
    assert call.timeline.times("speech_ended") == [1_500]
    assert call.timeline.reasons == ["stale_anchor"]


def test_an_end_of_speech_of_a_minute_ago_is_stale(call: Script) -> None:
    """It belongs to something else."""
    call.at(70_000).stream.speech_ended(source="vad_minus_hangover", hangover_ms=61_000)
    assert call.timeline.reasons == ["stale_anchor"]


def test_the_last_frame_without_any_is_counted(call: Script) -> None:
    """Nothing came, nothing ended."""
    call.at(400).stream.speech_ended(source="last_frame")
    assert call.timeline.reasons == ["impossible_anchor"]


def test_an_onset_is_taken_back_by_what_the_detector_needs(call: Script) -> None:
    """Sure after 90 ms of speech."""
    call.at(1_000).stream.speech_started(onset_delay_ms=90)
    assert call.timeline.times("speech_started") == [910]


def test_an_onset_before_the_last_end_is_impossible(call: Script) -> None:
    """The caller cannot begin before having stopped."""
    call.at(1_000).stream.speech_ended(source="stt_final")
    call.at(1_010).stream.speech_started(onset_delay_ms=90)
    assert call.timeline.times("speech_started") == []
    assert call.timeline.reasons == ["impossible_onset"]


# -- first audio and its silence --------------------------------------------------------------------------------------


def test_the_first_audio_of_an_utterance_is_told_once(call: Script) -> None:
    """However many messages it is made of."""
    for place in range(5):
        call.at(100 + place).say(20)
    assert call.timeline.times("audio_sent") == [100]
    assert call.timeline.last("audio_sent") == {"silence_ms": 0, "is_filler": False}


def test_leading_silence_is_counted_to_the_first_audible_sample(call: Script) -> None:
    """In one message."""
    call.at(100).say(200, silence_ms=130)
    assert call.timeline.last("audio_sent")["silence_ms"] == 130


def test_leading_silence_over_several_messages_is_told_once_it_ends(call: Script) -> None:
    """Not known at the first, and nothing is told after the first sound."""
    call.at(100).say(20, silence_ms=20)
    call.at(101).say(20, silence_ms=20)
    call.at(102).say(20, silence_ms=5)
    call.at(103).say(20, silence_ms=5)
    assert call.timeline.last("audio_sent")["silence_ms"] is None
    assert call.timeline.times("audible_after") == [45]


def test_other_encodings_are_not_searched_for_silence() -> None:
    """Unknown, not none."""
    script, start = Script(started=False), start_message()
    start["start"]["mediaFormat"]["encoding"] = "audio/x-alaw"
    script.stream.on_message(start)
    script.at(100).say(20)
    script.say(20)
    assert script.timeline.last("audio_sent")["silence_ms"] is None
    assert script.timeline.times("audible_after") == []


def test_an_onset_that_a_busy_loop_shows_late_is_as_early_as_its_audio_came(call: Script) -> None:
    """The frames of half a second were handed over at once: the speech did not begin behind its end."""
    for place in range(5):
        call.at(20 * (place + 1)).hear(20 * place)
    call.at(500)
    for place in range(5, 8):
        call.hear(20 * place)
    call.stream.speech_started(onset_delay_ms=40)
    for place in range(8, 12):
        call.hear(20 * place)
    call.stream.speech_ended(source="twilio_media_clock", hangover_ms=60)
    assert call.timeline.times("speech_started") == [120]
    assert call.timeline.times("speech_ended") == [180]
    assert call.timeline.reasons == []


def test_an_onset_without_audio_of_late_is_now(call: Script) -> None:
    """A detector elsewhere, or a stream that was held."""
    call.at(20).hear(0)
    call.at(900).stream.speech_started(onset_delay_ms=100)
    assert call.timeline.times("speech_started") == [800]


def test_the_threshold_of_silence_is_the_named_amplitude() -> None:
    """G.711: codes 0xF0 to 0xFF and 0x70 to 0x7F are below 132, and all others are not."""
    assert AUDIBLE_AMPLITUDE == 132
    silent = [code for code in range(256) if silent_samples(bytes([code]))]
    assert silent == [*range(0x70, 0x80), *range(0xF0, 0x100)]


@pytest.mark.parametrize("silence", [0xFF, 0x7F, 0xF4])
@pytest.mark.parametrize("samples", [0, 1, 2, 3, 4, 767, 768, 769, 5_000])
def test_silence_is_counted_sample_by_sample(silence: int, samples: int) -> None:
    """Digital or not, however long, wherever the base64 is cut."""
    audio = bytes([silence]) * samples
    assert leading_silence(base64.b64encode(audio + LOUD + SILENT).decode()) == samples
    assert leading_silence(base64.b64encode(audio).decode()) is None


@pytest.mark.parametrize("size", range(9))
def test_the_size_of_a_payload_is_known_without_decoding_it(size: int) -> None:
    """With any padding."""
    assert base64_length(base64.b64encode(bytes(size)).decode()) == size


def test_fillers_are_told_as_such(call: Script) -> None:
    """The answer behind a filler is something new, though there is no pause between the two."""
    with call.stream.filler():
        call.at(100).say(500)
    call.at(150).say(500)
    assert [(at, more["is_filler"]) for name, at, more in call.timeline.told if name == "audio_sent"] == [
        (100, True),
        (150, False),
    ]


def test_a_filler_can_be_switched_by_hand(call: Script) -> None:
    """Without a block."""
    call.stream.filler(True)
    call.at(100).say(20)
    call.stream.filler(False)
    call.at(110).say(20)
    assert [more["is_filler"] for name, _, more in call.timeline.told if name == "audio_sent"] == [True, False]


def test_audio_after_a_pause_is_something_new(call: Script) -> None:
    """A second of silence; less than that is a slow synthesiser."""
    call.at(100).say(100)
    call.at(900).say(100)
    call.at(2_100).say(100)
    assert call.timeline.times("audio_sent") == [100, 2_100]


def test_audio_after_the_callers_speech_is_an_answer(call: Script) -> None:
    """A short pause is enough then."""
    call.at(100).say(100)
    call.at(300).stream.speech_ended(source="stt_final")
    call.at(500).say(100)
    assert call.timeline.times("audio_sent") == [100, 500]


def test_what_the_bot_goes_on_saying_is_no_answer(call: Script) -> None:
    """The caller said "aha" into the middle of it: that was not answered 10 ms later."""
    call.at(100).say(1_000)
    call.at(500).stream.speech_ended(source="stt_final")
    call.at(510).say(1_000)
    assert call.timeline.times("audio_sent") == [100]


def test_the_bot_may_say_that_something_new_begins(call: Script) -> None:
    """Where it answers without having fallen silent."""
    call.at(100).say(1_000)
    call.stream.new_utterance()
    call.at(510).say(1_000)
    assert call.timeline.times("audio_sent") == [100, 510]


# -- playback ---------------------------------------------------------------------------------------------------------


def test_playback_began_a_chunk_before_its_mark_came_back(call: Script) -> None:
    """20 ms of audio, sent at 100, its mark back at 180: played from 160 at the latest, and after it was sent."""
    call.at(100).say(20, "m")
    call.at(180).returned("m")
    assert call.timeline.times("playback_started") == [160]
    assert call.timeline.last("playback_started") == {"uncertainty_ms": 80}


def test_a_mark_after_more_audio_tells_the_same(call: Script) -> None:
    """The playing time of all that lies before it is taken off."""
    call.at(100).say(400)
    call.at(150).say(200, "m")
    call.at(760).returned("m")
    assert call.timeline.times("playback_started") == [160]


def test_waiting_for_the_synthesiser_is_not_waiting_for_twilio(call: Script) -> None:
    """A pause of 200 ms between two chunks: told from the schedule, and added to the uncertainty."""
    call.at(100).say(20)
    call.at(320).say(20, "m")
    call.at(400).returned("m")
    assert call.timeline.times("playback_started") == [160]
    assert call.timeline.last("playback_started") == {"uncertainty_ms": 60 + 200 + 20}


def test_a_known_round_trip_narrows_the_uncertainty(call: Script) -> None:
    """A mark that waits for no audio shows how long the way there and back takes."""
    call.at(10).mark("ping")
    call.at(40).returned("ping")
    call.at(100).say(20, "m")
    call.at(320).returned("m")
    assert call.timeline.last("playback_started") == {"uncertainty_ms": 30 + 20}


def test_an_answer_behind_a_filler_is_played_after_it(call: Script) -> None:
    """Its schedule begins where the filler's ends."""
    with call.stream.filler():
        call.at(100).say(500, "filler")
    call.at(150).say(20, "answer")
    call.at(660).returned("filler")
    call.at(680).returned("answer")
    assert call.timeline.times("playback_started") == [160, 660]
    assert call.timeline.times("playback_ended") == [660]


def test_playback_ends_with_the_last_mark(call: Script) -> None:
    """Told once nothing is added any more, at the instant at which it was."""
    call.at(100).say(20, "first")
    call.at(120).say(480, "last")
    call.at(180).returned("first")
    call.at(660).returned("last")
    assert call.timeline.times("playback_ended") == []
    call.at(1_000).stream.speech_started()
    assert call.timeline.times("playback_ended") == [660]
    assert [name for name, _, _ in call.timeline.told][-2:] == ["playback_ended", "speech_started"]


def test_playback_that_starves_goes_on(call: Script) -> None:
    """The first chunk was played before the second came: one utterance, one beginning, one end."""
    call.at(100).say(20, "first")
    call.at(180).returned("first")
    call.at(400).say(100, "last")
    call.at(560).returned("last")
    call.at(2_000).hear(1_980)
    assert call.timeline.times("audio_sent") == [100]
    assert call.timeline.times("playback_started") == [160]
    assert call.timeline.times("playback_ended") == [560]


def test_marks_of_one_name_come_back_in_order(call: Script) -> None:
    """Bots give all their marks the same name."""
    call.at(100).say(20, "part")
    call.at(101).say(480, "part")
    call.at(160).returned("part")
    call.at(640).returned("part")
    call.at(2_000).hear(1_980)
    assert call.timeline.times("playback_started") == [140]
    assert call.timeline.times("playback_ended") == [640]
    assert call.timeline.reasons == []


def test_a_lost_first_mark_is_made_up_for_by_the_second(call: Script) -> None:
    """It was overtaken; the playback's beginning is known all the same."""
    call.at(100).say(20, "a")
    call.at(101).say(80, "b")
    call.at(240).returned("b")
    assert call.timeline.times("playback_started") == [140]
    assert call.timeline.reasons == ["mark_out_of_order"]


def test_marks_out_of_order_are_told_once(call: Script) -> None:
    """The one that comes late changes nothing."""
    call.at(100).say(20, "a")
    call.at(101).say(80, "b")
    call.at(240).returned("b")
    call.at(241).returned("a")
    assert call.timeline.times("playback_started") == [140]
    assert call.timeline.reasons == ["mark_out_of_order"]


def test_a_mark_that_never_comes_back_is_lost(call: Script) -> None:
    """The utterance ends without an end, and the next one is measured."""
    call.at(100).say(20, "a")
    call.at(6_000).hear(5_980)
    assert call.timeline.reasons == ["lost_mark"]
    call.at(6_100).say(20, "b")
    call.at(6_160).returned("b")
    assert call.timeline.times("playback_started") == [6_140]
    assert call.timeline.times("playback_ended") == []


def test_a_lost_mark_that_comes_at_last_is_ignored(call: Script) -> None:
    """It was counted."""
    call.at(100).say(20, "a")
    call.at(6_000).hear(5_980)
    call.at(6_010).returned("a")
    assert call.timeline.times("playback_started") == []
    assert call.timeline.reasons == ["lost_mark"]


def test_a_mark_that_was_not_sent_is_counted(call: Script) -> None:
    """And one that comes back twice."""
    call.at(100).returned("what")
    call.at(200).say(20, "m")
    call.at(260).returned("m")
    call.at(261).returned("m")
    assert call.timeline.reasons == ["unknown_mark", "unknown_mark"]


def test_a_mark_that_comes_before_its_audio_can_be_played_is_impossible(call: Script) -> None:
    """A second of audio, acknowledged after 50 ms: no playback began 950 ms before it was sent."""
    call.at(100).say(1_000, "m")
    call.at(150).returned("m")
    assert call.timeline.times("playback_started") == []
    assert call.timeline.reasons == ["impossible_mark"]


def test_a_mark_may_be_early_by_a_packet(call: Script) -> None:
    """It may be sent with the last packet: the playback began when the audio was sent, not before."""
    call.at(100).say(40, "m")
    call.at(130).returned("m")
    assert call.timeline.times("playback_started") == [100]


def test_without_marks_playback_is_unknown(call: Script) -> None:
    """Counted once an utterance."""
    call.at(100).say(100)
    call.at(5_000).hear(4_980)
    assert call.timeline.times("playback_started") == []
    assert call.timeline.reasons == ["no_mark"]


def test_without_a_last_mark_the_end_is_unknown(call: Script) -> None:
    """The beginning is not."""
    call.at(100).say(20, "m")
    call.say(480)
    call.at(160).returned("m")
    call.at(5_000).hear(4_980)
    assert call.timeline.times("playback_started") == [140]
    assert call.timeline.times("playback_ended") == []
    assert call.timeline.reasons == ["no_end_mark"]


def test_no_more_marks_are_kept_than_a_thousand(call: Script) -> None:
    """A bot whose marks never come back costs no memory."""
    for place in range(1_500):
        call.say(1, f"m{place}")
    assert len(call.stream._playback._marks) == 1_000
    assert call.timeline.reasons == ["lost_mark"] * 500


# -- barge-in ---------------------------------------------------------------------------------------------------------


def speaking(call: Script) -> Script:
    """The bot says two seconds, from 100 ms on; its first mark is back."""
    call.at(100).say(20, "first")
    call.say(1_980, "last")
    call.at(180).returned("first")
    return call


def test_a_barge_in_is_measured_to_the_clear_and_to_the_silence(call: Script) -> None:
    """Onset at 1,000; clear at 1,050; the last mark back at 1,130: 970 ms of 2,000 were played."""
    speaking(call).at(1_040).stream.speech_started(onset_delay_ms=40)
    call.at(1_050).clear()
    call.at(1_130).returned("last")
    call.at(2_000).stream.speech_ended(source="vad_minus_hangover", hangover_ms=200)
    (told,) = call.timeline.barge_ins
    assert (told.at_ns, told.reaction_ms, told.silenced_ms, told.is_false) == (1_000 * MS, 50, 130, False)
    assert told.heard_share == pytest.approx((20 + 1_130 - 180) / 2_000)
    assert call.timeline.times("playback_ended") == [1_130]
    assert call.timeline.reasons == []


def test_marks_that_a_clear_gives_back_do_not_tell_of_playing(call: Script) -> None:
    """The first mark was not back yet: whether anything was heard is unknown."""
    call.at(100).say(20, "first")
    call.say(1_980, "last")
    call.at(130).stream.speech_started()
    call.at(140).clear()
    call.at(200).returned("first")
    call.at(201).returned("last")
    call.at(900).stream.speech_ended(source="stt_final")
    assert call.timeline.times("playback_started") == []
    assert call.timeline.reasons == ["cleared_before_mark"]
    (told,) = call.timeline.barge_ins
    assert (told.silenced_ms, told.heard_share) == (71, None)


def test_marks_of_a_clear_may_come_in_any_order(call: Script) -> None:
    """The last of them is the silence."""
    speaking(call).mark("more")
    call.at(1_000).stream.speech_started()
    call.at(1_050).clear()
    call.at(1_100).returned("more")
    call.at(1_110).returned("last")
    call.at(2_000).stream.speech_ended(source="stt_final")
    assert call.timeline.barge_ins[0].silenced_ms == 110
    assert call.timeline.reasons == []


def test_a_second_clear_changes_nothing(call: Script) -> None:
    """Bots send it twice."""
    speaking(call).at(1_000).stream.speech_started()
    call.at(1_050).clear()
    call.at(1_060).clear()
    call.at(1_110).returned("last")
    call.at(2_000).stream.speech_ended(source="stt_final")
    (told,) = call.timeline.barge_ins
    assert (told.reaction_ms, told.silenced_ms) == (50, 110)
    assert call.timeline.reasons == []


def test_a_clear_that_gives_no_mark_back_leaves_the_silence_unknown(call: Script) -> None:
    """After two seconds they are lost."""
    speaking(call).at(1_000).stream.speech_started()
    call.at(1_050).clear()
    call.at(2_000).stream.speech_ended(source="stt_final")
    assert call.timeline.barge_ins == []
    call.at(3_100).hear(3_000)
    (told,) = call.timeline.barge_ins
    assert (told.reaction_ms, told.silenced_ms, told.is_false) == (50, None, False)
    assert call.timeline.reasons == ["lost_mark"]


def test_a_bot_that_clears_before_it_reports_the_onset_is_measured_too(call: Script) -> None:
    """The detector's delay makes the onset the earlier one."""
    speaking(call).at(1_050).clear()
    call.at(1_051).stream.speech_started(onset_delay_ms=90)
    call.at(1_110).returned("last")
    call.at(2_000).stream.speech_ended(source="stt_final")
    (told,) = call.timeline.barge_ins
    assert (told.reaction_ms, told.silenced_ms) == (89, 149)


def test_a_reaction_before_the_onset_is_unknown(call: Script) -> None:
    """Never negative; the silence after it is known."""
    speaking(call).at(1_050).clear()
    call.at(1_060).stream.speech_started()
    call.at(1_110).returned("last")
    call.at(2_000).stream.speech_ended(source="stt_final")
    (told,) = call.timeline.barge_ins
    assert (told.reaction_ms, told.silenced_ms) == (None, 50)
    assert call.timeline.reasons == ["impossible_onset"]


def test_speech_while_the_bot_is_silent_is_no_barge_in(call: Script) -> None:
    """All was played, and the marks say so."""
    speaking(call).at(2_180).returned("last")
    call.at(2_200).stream.speech_started()
    call.at(3_000).stream.speech_ended(source="stt_final")
    call.stop()
    assert call.timeline.barge_ins == []


def test_a_clear_without_the_callers_speech_is_no_barge_in(call: Script) -> None:
    """The bot had a reason of its own."""
    speaking(call).at(1_000).clear()
    call.at(1_050).returned("last")
    call.at(9_000).stream.speech_started()
    call.stop()
    assert call.timeline.barge_ins == []


def test_a_bot_that_speaks_on_without_any_speech_was_interrupted_falsely(call: Script) -> None:
    """Silenced, and nothing was said until it spoke again."""
    speaking(call).at(1_000).stream.speech_started()
    call.at(1_050).clear()
    call.at(1_110).returned("last")
    call.at(2_500).say(20)
    (told,) = call.timeline.barge_ins
    assert (told.is_false, told.reaction_ms) == (True, 50)


def test_the_bot_may_say_that_it_was_no_speech(call: Script) -> None:
    """An empty transcript."""
    speaking(call).at(1_000).stream.speech_started()
    call.at(1_050).clear()
    call.at(1_110).returned("last")
    call.at(1_500).stream.no_speech()
    assert [told.is_false for told in call.timeline.barge_ins] == [True]


def test_an_onset_after_an_onset_was_false(call: Script) -> None:
    """Nothing came of the first, and the bot spoke on."""
    speaking(call).at(1_000).stream.speech_started()
    call.at(1_400).stream.speech_started()
    call.at(1_450).clear()
    call.at(1_510).returned("last")
    call.at(2_000).stream.speech_ended(source="stt_final")
    assert [(told.at_ns / MS, told.is_false) for told in call.timeline.barge_ins] == [(1_000, True), (1_400, False)]


def test_a_bot_that_does_not_stop_has_no_reaction(call: Script) -> None:
    """The caller spoke, the bot went on to its end: all was played."""
    speaking(call).at(1_000).stream.speech_started()
    call.at(1_500).stream.speech_ended(source="stt_final")
    assert call.timeline.barge_ins == []
    call.at(2_180).returned("last")
    call.at(4_000).hear(3_980)
    assert call.timeline.barge_ins == [BargeIn(at_ns=1_000 * MS, heard_share=1.0)]


def test_who_hangs_up_in_the_middle_did_not_cough(call: Script) -> None:
    """Told with what is known until then."""
    speaking(call).at(1_000).stream.speech_started()
    call.at(1_050).clear()
    call.at(1_060).stop()
    (told,) = call.timeline.barge_ins
    assert (told.reaction_ms, told.silenced_ms, told.is_false) == (50, None, False)
    assert call.timeline.times("hung_up") == [1_060]


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_call_ends_once(call: Script) -> None:
    """`stop`, and then the WebSocket closes."""
    call.at(500).stop()
    call.at(510).stream.closed()
    assert call.timeline.times("hung_up") == [500]


def test_a_connection_that_breaks_is_a_hang_up(call: Script) -> None:
    """Without `stop`."""
    call.at(510).stream.closed()
    assert call.timeline.times("hung_up") == [510]


def test_nothing_is_told_of_a_call_that_is_over(call: Script) -> None:
    """Messages and reports that come too late."""
    call.at(500).stop()
    call.at(600).say(20, "m")
    call.returned("m")
    call.stream.speech_started()
    call.stream.speech_ended(source="stt_final")
    assert [name for name, _, _ in call.timeline.told] == ["hung_up"]


def test_a_hang_up_before_the_first_mark_is_counted(call: Script) -> None:
    """Whether the caller heard anything is unknown; that marks are outstanding is no loss."""
    call.at(100).say(20, "m")
    call.at(120).stop()
    assert call.timeline.reasons == ["hung_up_before_mark"]


# -- never hurts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        None, 5, [], "", "x", b"\xff\xfe", "[]", "{}", "[" * 100_000, {"event": None}, {"event": []},
        {"event": "media"}, {"event": "media", "media": 5},
        {"event": "media", "media": {"payload": 5, "timestamp": {}}},
        {"event": "media", "media": {"payload": "é" * 9, "timestamp": "-1"}},
        {"event": "media", "media": {"payload": "====", "timestamp": "9" * 5_000}},
        {"event": "mark"}, {"event": "mark", "mark": {"name": []}}, {"event": "start", "start": "CA1"},
        {"event": "start", "start": {"mediaFormat": {"sampleRate": 0}, "customParameters": [1]}},
        {"event": "dtmf", "dtmf": {"digit": "1"}}, {"event": "new"}, {"event": "clear", "streamSid": []},
    ],
    ids=lambda message: repr(message)[:40],
)  # fmt: skip
def test_whatever_comes_nothing_is_raised(message: Any, call: Script) -> None:
    """In either direction, before and after `start`."""
    for stream in (call.stream, TwilioMediaStream(call.timeline)):
        stream.on_message(message)
        stream.on_send(message)
    assert set(call.timeline.reasons) <= REASONS


def test_nobody_need_listen() -> None:
    """Ids and media clock are there without a timeline."""
    stream = TwilioMediaStream()
    stream.on_message(start_message())
    stream.on_message({"event": "media", "media": {"payload": payload(LOUD, 20), "timestamp": "0"}})
    stream.speech_started()
    stream.speech_ended(source="last_frame")
    stream.closed()
    assert (stream.call_sid, stream.media_ms) == ("CA1", 20)


def test_a_fault_of_the_timeline_stays_there(call: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next thing is told."""
    monkeypatch.setattr("callbot_latency.base.internal_errors.raise_internal_errors.enabled", False)
    monkeypatch.setattr(call.timeline, "speech_started", lambda at_ns: 1 / 0)
    call.at(100).stream.speech_started()
    call.at(900).stream.speech_ended(source="stt_final")
    assert call.timeline.times("speech_ended") == [900]


# -- the webhook ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        {"CallSid": "CA1", "From": "+1"},
        {"CallSid": ["CA1"]},
        "CallSid=CA1&From=%2B1",
        b"From=%2B1&CallSid=CA1",
    ],
)
def test_a_webhooks_form_names_the_call(form: Any) -> None:
    """Parsed or not."""
    assert call_sid_of(form) == "CA1"


@pytest.mark.parametrize("form", [{}, {"CallSid": ""}, {"CallSid": []}, {"CallSid": 5}, "", b"\xff", None, 5])
def test_a_form_without_a_call_names_none(form: Any) -> None:
    """Whatever it is."""
    assert call_sid_of(form) is None


def test_parameters_go_through_the_twiml_and_come_back() -> None:
    """Quoted, so that a value cannot end the element."""
    assert stream_parameters({"a": 'x"<&', "b": "y"}) == (
        '<Parameter name="a" value=\'x"&lt;&amp;\' /><Parameter name="b" value="y" />'
    )
    assert custom_parameters(start_message(a='x"<&')) == {"a": 'x"<&'}
    assert custom_parameters({"event": "media"}) == {}


def test_a_parameter_that_twilio_refuses_is_refused_here() -> None:
    """Without its value in the error."""
    with pytest.raises(ValueError, match="a: expected at most 499") as raised:
        stream_parameters({"a": "secret" * 100})
    assert "secret" not in str(raised.value)


def test_silence_and_sound_of_these_tests_are_such() -> None:
    """What the script sends is what it says."""
    assert silent_samples(SILENT * 3 + LOUD + SILENT) == 3


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_stands_in_the_docs(reason: str) -> None:
    """docs/twilio.md explains each."""
    assert f"| `{reason}` |" in (ROOT / "docs/twilio.md").read_text()
