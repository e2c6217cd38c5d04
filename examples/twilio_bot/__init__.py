"""A bot on Twilio Media Streams in one file, with stubs for engines: docs/tutorial-twilio.md."""
