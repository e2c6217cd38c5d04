"""A small phone bot, measured with callbot_latency: read bot.py first, or run ``python -m examples.callbot.demo``."""
