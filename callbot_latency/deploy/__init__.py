"""Files for the servers around a bot, generated from the bot's own settings: ``python -m callbot_latency.deploy``."""

from .rule_file import Options, rule_file

__all__ = ["Options", "rule_file"]
