"""The reporter that holds every measurement against the rules of the file, and tells the policy what they say."""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import translate
from time import monotonic
from typing import Any, Final

from ...base.bounded import MAX_CALLS, BoundedMap
from ...base.internal_errors import call_safely
from ...model.alert import Alert, AlertEvent
from ...model.metric import LatencyMetric
from ...model.thresholds import Thresholds
from ..policy import AlertPolicy
from .business_hours import any_open
from .conditions import Evaluation, evaluator_for
from .schema import Match, Rule
from .text import ENDINGS, TEXTS, RuleText, in_words, rule_fields

__all__ = ["LOOK_EVERY_S", "MAX_KINDS", "RuleEngine"]

LOOK_EVERY_S: Final = 1.0
"""How often windows, silence and business hours are looked at."""
MAX_KINDS: Final = 1_000
"""For how many kinds of operations it is remembered which rules they concern; of others it is found out each time."""

_NOTHING: Final[Mapping[str, Any]] = {}
_Kind = tuple[str, str, str | None]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class RuleEngine:
    """Runs on the worker: `report` for each batch, `tick` as time passes.

    What it keeps is bounded: windows of slices, metadata of the newest calls and turns, and one state for each rule.

    Args:
        rules: what the file says.
        policy: decides what of it becomes a message, as for every other alert.
        thresholds: of the operation types, in milliseconds: what an alert names where its rule is about no time.
        language: of texts that a rule does not give: ``en`` or ``fr``.
        clock: a monotonic clock in seconds.
        now: the time of day, aware, for business hours.

    """

    def __init__(
        self,
        rules: Sequence[Rule],
        policy: AlertPolicy,
        thresholds: Thresholds,
        *,
        language: str = "en",
        clock: Callable[[], float] = monotonic,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._rules = [_RunningRule(rule, policy, thresholds, language) for rule in rules]
        self._metadata_keys = frozenset().union(*(rule.metadata_keys for rule in self._rules))
        self.opened_calls: deque[tuple[str, int | None, Mapping[str, Any]]] | None = (
            deque(maxlen=MAX_CALLS) if self._metadata_keys else None
        )
        """Where `call()` leaves its call_sid and metadata, and `turn()` its number too; None where no rule asks for
        metadata.
        """
        self._clock = clock
        self._now = now
        self._reset()

    def _reset(self) -> None:
        self._by_kind: dict[_Kind, tuple[_RunningRule, ...]] = {}
        self._calls: BoundedMap[str, Mapping[str, Any]] = BoundedMap(MAX_CALLS)
        self._turns: BoundedMap[tuple[str, int], Mapping[str, Any]] = BoundedMap(MAX_CALLS)
        self._next_look_s = float("-inf")
        if self.opened_calls is not None:
            self.opened_calls.clear()
        for rule in self._rules:
            rule.reset()

    def start(self) -> None:
        """The rules come into force."""
        self._open(self._clock())

    def restart_after_fork(self) -> None:
        """In a forked child: what was seen so far is the parent's to tell."""
        self._reset()
        self.start()

    def close(self) -> None:
        """Nothing to close: what is held back is the policy's to tell."""

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Take in finished operations; they count from now on, whenever they ended."""
        now_s = self._clock()
        if now_s >= self._next_look_s:
            self._open(now_s)
        self._take_in_calls()
        for metric in batch:
            if metric.attempt is not None:
                continue  # a part of an operation, which a rule counts already
            rules = self._rules_for(metric)
            if rules:
                metadata = self._metadata_of(metric)
                for rule in rules:
                    call_safely(rule.take, metric, metadata, now_s)

    def tick(self) -> None:
        """Look at what time alone changes."""
        now_s = self._clock()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_EVERY_S
        self._open(now_s)
        for rule in self._rules:
            call_safely(rule.evaluate, now_s, self._metadata_of)

    def _open(self, now_s: float) -> None:
        at = self._now()
        for rule in self._rules:
            call_safely(rule.open_or_close, at, now_s)

    def _rules_for(self, metric: LatencyMetric) -> "tuple[_RunningRule, ...]":
        # _value_ is what .value reads, without the cost of Enum's descriptor.
        kind = metric.operation_type._value_, metric.operation_name, metric.provider
        found = self._by_kind.get(kind)
        if found is None:
            found = tuple(rule for rule in self._rules if rule.matcher.fits_kind(*kind))
            if len(self._by_kind) < MAX_KINDS:
                self._by_kind[kind] = found
        return found

    # -- metadata -------------------------------------------------------------------------------------------------

    def _take_in_calls(self) -> None:
        """Whoever opened a call or a turn did so before its operations ended: what they need is here by now."""
        opened = self.opened_calls
        while opened:
            call_sid, turn, metadata = opened.popleft()
            asked_for = {key: value for key, value in metadata.items() if key in self._metadata_keys}
            if turn is None:
                self._calls.put(call_sid, {**self._calls.get(call_sid, _NOTHING), **asked_for})
            elif asked_for:
                self._turns.put((call_sid, turn), asked_for)

    def _metadata_of(self, metric: LatencyMetric) -> Mapping[str, Any]:
        """The operation's own; for what it does not say, its turn's, and then its call's."""
        call_sid = metric.call_sid
        if call_sid is None:
            return metric.metadata
        around = self._calls.get(call_sid, _NOTHING)
        if around:
            self._calls.move_to_end(call_sid)
        if metric.turn is not None and (of_turn := self._turns.get((call_sid, metric.turn))):
            around = {**around, **of_turn}
        if not around:
            return metric.metadata
        return {**around, **metric.metadata} if metric.metadata else around


class _Matcher:
    """A rule's match, made ready."""

    def __init__(self, match: Match) -> None:
        self._types = frozenset(match.operation_type)
        self._names = _pattern(match.operation_name)
        self._providers = _pattern(match.provider)
        self._metadata = {key: _pattern(globs) for key, globs in match.metadata.items()}

    def fits_kind(self, operation_type: str, name: str, provider: str | None) -> bool:
        if self._types and operation_type not in self._types:
            return False
        return _fits(self._names, name) and _fits(self._providers, provider)

    def fits_metadata(self, metadata: Mapping[str, Any]) -> bool:
        return all(_fits(pattern, _written(metadata.get(key))) for key, pattern in self._metadata.items())


def _pattern(globs: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(translate(glob) for glob in globs)) if globs else None


def _fits(pattern: re.Pattern[str] | None, value: str | None) -> bool:
    return pattern is None or (value is not None and pattern.match(value) is not None)


def _written(value: Any) -> str | None:
    """A value of metadata as the file of rules writes it."""
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


class _RunningRule:
    """A rule, what it has seen, and whether it fires."""

    def __init__(self, rule: Rule, policy: AlertPolicy, thresholds: Thresholds, language: str) -> None:
        self._rule = rule
        self._policy = policy
        self._thresholds = thresholds
        self._evaluator = evaluator_for(rule)
        self._hours = [each.business_hours for each in rule.hours]
        self._statement = RuleText(TEXTS[language][rule.condition.kind], rule.fields)
        self._text = self._statement if rule.text is None else RuleText(rule.text, rule.fields)
        self._endings = ENDINGS[language]
        self.matcher = _Matcher(rule.match)
        self.metadata_keys = self._text.metadata_keys | set(rule.match.metadata)
        self.reset()

    def reset(self) -> None:
        self._is_open = False
        self._ended()

    def _ended(self) -> None:
        self._since_s: float | None = None
        self._since: datetime | None = None
        self._shown: LatencyMetric | None = None

    def open_or_close(self, at: datetime, now_s: float) -> None:
        """Outside of its hours a rule counts nothing; when they begin, it begins anew."""
        if any_open(self._hours, at) == self._is_open:
            return
        self._is_open = not self._is_open
        if self._is_open:
            self._evaluator.reset(now_s)
        elif self._since_s is not None:
            self._end("closed", now_s)

    def take(self, metric: LatencyMetric, metadata: Mapping[str, Any], now_s: float) -> None:
        if self._is_open and self.matcher.fits_metadata(metadata):
            evaluation = self._evaluator.add(metric, now_s)
            if evaluation is not None:
                self._act(evaluation, metadata, now_s)

    def evaluate(self, now_s: float, metadata_of: Callable[[LatencyMetric], Mapping[str, Any]]) -> None:
        if self._is_open:
            evaluation = self._evaluator.evaluate(now_s)
            if evaluation is not None:
                metadata = _NOTHING if evaluation.metric is None else metadata_of(evaluation.metric)
                self._act(evaluation, metadata, now_s)

    def _act(self, evaluation: Evaluation, metadata: Mapping[str, Any], now_s: float) -> None:
        if evaluation.holds:
            self._fire(evaluation, metadata, now_s, lasts=self._since_s is not None and not self._evaluator.each_counts)
        elif self._since_s is not None:
            self._end("lasted" if evaluation.known else "unknown", now_s, evaluation)

    def _fire(self, evaluation: Evaluation, metadata: Mapping[str, Any], now_s: float, *, lasts: bool) -> None:
        metric = evaluation.metric
        if metric is None:
            return
        if self._since_s is None:
            self._since_s, self._since = now_s, datetime.now(UTC)
        self._shown = metric
        own = {"rule": self._rule.name, "severity": self._rule.severity}
        text = self._text.render({**rule_fields(metric), **own, **evaluation.facts}, metadata)
        alert = self._alert(metric, evaluation, text, AlertEvent.BREACH)
        self._policy.rule(alert, cooldown_s=self._rule.cooldown_s, lasts=lasts)

    def _end(self, how: str, now_s: float, evaluation: Evaluation | None = None) -> None:
        if self._shown is not None and self._since_s is not None:
            text = self._endings[how].replace("{duration}", in_words(now_s - self._since_s))
            if (
                evaluation is not None
                and evaluation.known
                and "window" in evaluation.facts
                and "count" in evaluation.facts
            ):
                text += ": " + self._statement.render(evaluation.facts, _NOTHING)
            metric = self._shown if evaluation is None else evaluation.metric or self._shown
            self._policy.rule_over(self._alert(metric, evaluation, text, AlertEvent.RECOVERY))
        self._ended()

    def _alert(self, metric: LatencyMetric, evaluation: Evaluation | None, text: str, event: AlertEvent) -> Alert:
        threshold_ms = None if evaluation is None else evaluation.threshold_ms
        if threshold_ms is None:
            threshold_ms = self._thresholds.breached_ms(metric.operation_type, self._rule.level)
        return Alert(
            metric,
            self._rule.level,
            threshold_ms,
            event,
            since=self._since,
            worst_ms=None if evaluation is None else evaluation.value_ms,
            channels=self._rule.channels,
            rule=self._rule.name,
            text=text,
        )
