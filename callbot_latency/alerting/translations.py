"""The languages of alerts: English stands where it is used, its French stands here."""

from collections.abc import Mapping
from typing import Final, cast, get_args

from ..model.alert import Language

__all__ = ["FRENCH", "checked", "say"]

FRENCH: Final[Mapping[str, str]] = {
    # One line, as the log has it.
    "{what} took {ms} ms{call}": "{what} a pris {ms} ms{call}",
    "{what} for {ms} ms{call}": "{what} depuis {ms} ms{call}",
    " in call {call_sid}": " dans l'appel {call_sid}",
    "{severity}: {said}, {severity} from {ms} ms{alike}": "{severity} : {said}, {severity} à partir de {ms} ms{alike}",
    "{severity}: still running: {said}, {severity} from {ms} ms{alike}": (
        "{severity} : toujours en cours : {said}, {severity} à partir de {ms} ms{alike}"
    ),
    ", and {count} more like it": ", et {count} de plus du même genre",
    "recovered: {what} back under {ms} ms{after}, {count} slow, worst {worst} ms": (
        "rétabli : {what} de nouveau sous {ms} ms{after}, opérations lentes : {count}, au pire {worst} ms"
    ),
    " after {duration}": " après {duration}",
    "{severity}: {count} more slow operations, not told one by one; the last: {said}": (
        "{severity} : opérations lentes en plus, non annoncées une à une : {count} ; la dernière : {said}"
    ),
    "recovered: {count} kinds, not told one by one; the last: {what}": (
        "rétabli : {count} sortes d'opérations, non annoncées une à une ; la dernière : {what}"
    ),
    "{severity}: rule {rule}: {text}{call}{alike}": "{severity} : règle {rule} : {text}{call}{alike}",
    "recovered: rule {rule} is over {text}{fired}": "rétabli : règle {rule} terminée {text}{fired}",
    "rule {rule}": "règle {rule}",
    "rule {rule}: {text}": "règle {rule} : {text}",
    ", see call {call_sid}": ", voir l'appel {call_sid}",
    ", fired {count} times": ", déclenchée {count} fois",
    "still {severity}": "toujours {severity}",
    "warning": "avertissement",
    "critical": "critique",
    "test: this channel works; nothing is slow": "test : ce canal fonctionne ; rien n'est lent",
    # Title and facts, as messages have them.
    "{severity}: {what} took {ms} ms": "{severity} : {what} a pris {ms} ms",
    "{severity}: {what} still running after {ms} ms": "{severity} : {what} toujours en cours après {ms} ms",
    "Recovered: {what} back under {ms} ms": "Rétabli : {what} de nouveau sous {ms} ms",
    "{severity}: {count} more slow operations": "{severity} : opérations lentes en plus : {count}",
    "{severity}: rule {rule}": "{severity} : règle {rule}",
    "Recovered: {count} kinds": "Rétabli : {count} sortes d'opérations",
    "Recovered: rule {rule}": "Rétabli : règle {rule}",
    "Test of the alerts": "Test des alertes",
    "this channel works; nothing is slow": "ce canal fonctionne ; rien n'est lent",
    "Message": "Message",
    "Since": "Depuis",
    "Fired": "Déclenchée",
    "{count} times": "{count} fois",
    "Call": "Appel",
    "Turn": "Tour",
    "Provider": "Fournisseur",
    "Latency": "Latence",
    "{ms} ms, {severity} from {threshold} ms": "{ms} ms, {severity} à partir de {threshold} ms",
    "{ms} ms and still running, {severity} from {threshold} ms": (
        "{ms} ms et toujours en cours, {severity} à partir de {threshold} ms"
    ),
    "Outcome": "Résultat",
    "error": "erreur",
    "timeout": "délai dépassé",
    "cancelled": "annulé",
    "Slow since": "Lent depuis",
    "Slow": "Lentes",
    "{count}, worst {worst} ms": "{count}, au pire {worst} ms",
    "Held back": "Retenues",
    "{count} more like it since the last message": "{count} de plus du même genre depuis le dernier message",
    "{count} not told one by one": "{count}, non annoncées une à une",
    "The last": "La dernière",
    "Lasted": "Durée",
    "Trace": "Trace",
    "{label}: {value}": "{label} : {value}",
    "open the trace": "ouvrir la trace",
}
"""Each English text of an alert, and its French. What stands in braces is filled in, and is never translated."""


def say(language: Language, english: str, **values: object) -> str:
    """`english` in `language`, with `values` in its braces; what they say is taken as it is."""
    return (FRENCH[english] if language == "fr" else english).format(**values)


def checked(language: str) -> Language:
    """`language` itself.

    Raises:
        ValueError: a language that is not spoken here.

    """
    if language not in get_args(Language):
        raise ValueError(f"language: expected 'en' or 'fr', got {language!r}")
    return cast(Language, language)
