"""A bot on LiveKit Agents, with stubs for engines: docs/tutorial-livekit.md."""
