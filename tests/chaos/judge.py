"""The law: accepted = delivered + dropped(reason) + pending for each way out, and whatever else was promised."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.callers import Call
from tests.chaos.control import Control
from tests.chaos.reading import BOT, Exposed, Lines, by_name, logged, tag_of

MINUTE_S = 60.0
HARM_S = 1.0
"""What beginning or ending a measurement may take at most where nothing else holds the bot up. No server of the run
answers a bot that waits for it within this time: the time-outs are 3 and 5 s."""
LONGEST_HARM_S = 2.8
"""And however slow the machine: less than any time-out of the run."""
STOPS = 3
"""Where the machine is overloaded, so many times the longest stop of a process that does nothing are added: a process
of many threads stops whenever the one that holds Python's lock does."""
PIPELINE = "callbot_latency.pipeline"
KILLED = ("killed", "crashed")
LANE = "callbot_latency.reporters."


@dataclass
class Servers:
    """What they had once everything was well again, and the bot still ran."""

    points: Counter[str]
    slack: Counter[str]
    """At the end of the bot: what was held back is told when its time comes, though nothing is measured any more."""
    collector: Exposed
    pushgateway: Exposed


@dataclass
class Evidence:
    """All that is known of a run.

    Attributes:
        rested: the bot's account when nothing was measured any more and everything had been handed on.
        bot: its last account, after `shutdown()`.
        children: those of the processes that it forked: of one that was killed, what it had told by then.

    """

    rested: dict[str, Any]
    bot: dict[str, Any]
    children: dict[str, dict[str, Any]]
    calls: list[Call]
    lines: Lines
    servers: Servers
    control: Control
    imp_errors: list[str] = field(default_factory=list)


def findings(seen: Evidence) -> list[str]:
    """What breaks the law; empty where nothing does."""
    return [
        *_of_the_bot(seen),
        *_of_the_calls(seen),
        *_of_the_children(seen),
        *_of_the_file(seen),
        *_of_the_servers(seen),
        *(f"the imp failed: {error}" for error in seen.imp_errors),
    ]


def _of_the_bot(seen: Evidence) -> Iterator[str]:
    bot = seen.bot
    yield from _law("bot", bot)
    told = Counter(bot["told"]["measurements"])
    for name in ("load", "pulse"):
        if told[name] != bot["measured"][name] - _lost_before(bot):
            yield f"bot: measured {bot['measured'][name]} times {name}, reporters were told of {told[name]}"
    if any(status["pending"] for status in bot["status"].values()):
        yield f"bot: something is still pending after shutdown(): {bot['status']}"
    spans = bot["spans"]
    if spans["accepted"] != sum(spans.values()) - spans["accepted"]:
        yield f"bot: spans that ended are not exported + failed + dropped + pending: {spans}"
    yield from (f"bot: exception: {error}" for error in bot["exceptions"])


def _lost_before(account: dict[str, Any]) -> int:
    """What no reporter was told of, though it was measured."""
    return sum(account["dropped"].get(reason, 0) for reason in ("queue_full", "invalid", "after_shutdown"))


def _law(who: str, account: dict[str, Any]) -> Iterator[str]:
    """Of one process that ended as it should."""
    told = account["told"]
    measured = sum(told["measurements"].values())
    tracked = sum(n for name, n in by_name(account["tracker"]).items() if (tag_of(name) == who))
    if tracked != measured:
        yield f"{who}: the tracker has {tracked}, reporters were told of {measured}"
    for name, status in account["status"].items():
        if status["accepted"] != status["delivered"] + sum(status["dropped"].values()) + status["pending"]:
            yield f"{who}: {name}: accepted is not delivered + dropped + pending: {status}"
        wanted = told["alerts"] if name == "slack" else measured + told["turns"] + told["alerts"] * (name == "witness")
        if status["accepted"] != wanted:
            yield f"{who}: {name} accepted {status['accepted']}, {wanted} were there for it"
        for reason, amount in status["dropped"].items():
            if account["dropped"].get(reason) != amount:
                yield f"{who}: {name} dropped {amount} as {reason}, callbot.telemetry.dropped {account['dropped']}"
    known = {reason for status in account["status"].values() for reason in status["dropped"]}
    if unknown := {reason: n for reason, n in account["dropped"].items() if reason not in known}:
        others = {"queue_full", "callbacks_lane_full", "log_lane_full", "callbacks_unconfirmed", "log_unconfirmed"}
        if wrong := set(unknown) - others:
            yield f"{who}: dropped for {sorted(wrong)}, which nobody should be: {unknown}"
    yield from _law_of_the_log(who, account)


def _law_of_the_log(who: str, account: dict[str, Any]) -> Iterator[str]:
    """Its lines add up to what was dropped, each logger's own at most once a minute and once at the end."""
    said = logged(account)
    if said.get(PIPELINE, {}) != account["dropped"]:
        yield f"{who}: the log's lines add up to {said.get(PIPELINE, {})}, dropped were {account['dropped']}"
    for name, status in account["status"].items():
        # A lane that its reporter has not let go of by then says nothing more; the worker's line does.
        unsure = {key: n for key, n in status["dropped"].items() if not key.endswith("_unconfirmed")}
        if said.get(LANE + name, {}) not in (status["dropped"], unsure):
            yield f"{who}: {name}'s lines add up to {said.get(LANE + name, {})}, dropped were {status['dropped']}"
    for logger in said:
        at_s = [at for at, name, _ in account["drop_lines"] if name == logger]
        # The last one is said at the end, whenever that is.
        if any(later - earlier < MINUTE_S for earlier, later in zip(at_s[:-1], at_s[1:-1], strict=False)):
            yield f"{who}: {logger} spoke of drops more than once a minute: {at_s}"


def _of_the_calls(seen: Evidence) -> Iterator[str]:
    if not seen.calls:
        yield "no call was made"
    yield from (f"harmed: {call}" for call in seen.calls if call.is_harmed)
    slow_s = max(HARM_S, min(HARM_S * seen.control.slowdown, LONGEST_HARM_S))
    allowed_s = slow_s + STOPS * seen.control.longest_s
    # gRPC's own preparation of a fork waits for its threads and keeps Python's lock meanwhile; nothing over HTTP does.
    others = [*seen.bot["held"], *(seen.bot["forks"] if seen.bot["protocol"] == "grpc" else ())]
    # A full collection is harm by its CPU time: how long that takes is the machine's affair.
    others += [(began, ended) for began, ended, cpu_s in seen.bot["collections"] if cpu_s < HARM_S]
    for began, ended, what in seen.bot["late"]:
        if ended - began - held_up(began, ended, others) > allowed_s:
            collecting_s = held_up(began, ended, [(begin, end) for begin, end, _ in seen.bot["collections"]])
            yield (
                f"harmed: {what} took {ended - began:.3f} s, of which nobody else held it up;"
                f" Python collected garbage for {collecting_s:.3f} s of it"
            )


def held_up(began: float, ended: float, gaps: Sequence[tuple[float, float]]) -> float:
    """For how many seconds of that time something else held everything up."""
    held, until = 0.0, began
    for start, end in sorted((max(start, began), min(end, ended)) for start, end in gaps):
        held += max(0.0, end - max(start, until))
        until = max(until, end)
    return held


def _of_the_children(seen: Evidence) -> Iterator[str]:
    for tag, ended in seen.bot["children"].items():
        child = seen.children.get(tag)
        if ended not in ("ended", *KILLED):
            yield f"{tag}: {ended}, {child}"
        elif child is None or "error" in child:
            if ended not in KILLED:
                yield f"{tag}: told nothing, {child}"
        elif ended == "ended" and "told" not in child:
            yield f"{tag}: ended without an account, {child}"
        elif ended == "ended":
            yield from _law(tag, child)
            yield from (f"{tag}: exception: {error}" for error in child["exceptions"])
            measured = child["told"]["measurements"].get(f"load_{tag}", 0)
            if child["measured"] != measured + _lost_before(child):
                yield f"{tag}: measured {child['measured']}, reporters were told of {child['told']}"


def _of_the_file(seen: Evidence) -> Iterator[str]:
    lines = seen.lines
    if lines.torn:
        yield f"{len(lines.torn)} lines of the file are no JSON: {lines.torn[:3]}"
    if lines.twice:
        yield f"{lines.twice} lines stand in the file again"
    for tag, ended in {BOT: "ended", **seen.bot["children"]}.items():
        child, written = seen.children.get(tag, {}), lines.written[tag]
        if ended == "ended" and "status" in (account := seen.bot if tag == BOT else child):
            delivered = account["status"]["jsonl"]["delivered"]
            unsure = account["status"]["jsonl"]["dropped"].get("jsonl_unconfirmed", 0)
            if not delivered <= written <= delivered + unsure:
                yield f"{tag}: {written} lines in the file, {delivered} delivered and {unsure} unconfirmed"
        elif ended in KILLED and not child.get("delivered", 0) <= written <= child.get("measured", 0):
            yield f"{tag}: killed; {written} lines in the file, it had told of {child}"


def _of_the_servers(seen: Evidence) -> Iterator[str]:
    servers, rested = seen.servers, seen.rested
    for name, there, bot in (("influxdb", servers.points, rested), ("slack", servers.slack, seen.bot)):
        for tag, account in {BOT: bot, **_ended(seen)}.items():
            status = account["status"][name]
            unsure = sum(status["dropped"].get(f"{name}_{reason}", 0) for reason in ("unconfirmed", "gave_up"))
            if not status["delivered"] <= there[tag] <= status["delivered"] + unsure:
                yield f"{tag}: {name} has {there[tag]}, {status['delivered']} were delivered: {status}"
    for name, page in (("collector", servers.collector), ("pushgateway", servers.pushgateway)):
        if difference := of_the_bot(page, rested):
            yield f"{name} has other numbers than were measured (there, measured): {difference}"


def of_the_bot(page: Exposed, account: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """In what a page differs from what the bot measured, and dropped."""
    own = Counter({key: n for key, n in page.counts.items() if tag_of(key) == BOT})
    return _difference(own, by_name(account["tracker"])) | _difference(page.drops, account["dropped"])


def _ended(seen: Evidence) -> dict[str, dict[str, Any]]:
    return {
        tag: seen.children[tag]
        for tag, how in seen.bot["children"].items()
        if how == "ended" and "told" in seen.children.get(tag, {})
    }


def _difference(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    pairs = {key: (one.get(key, 0), other.get(key, 0)) for key in {*one, *other}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
