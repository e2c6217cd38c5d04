"""A bot on pipecat and Twilio Media Streams, with stubs for engines: docs/tutorial-pipecat.md."""
