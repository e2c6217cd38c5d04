"""What ten alert rules cost the worker: its own CPU time, at 2,000 measurements a second.

Batches come as the worker gets them, ten a second, on a clock that is moved by hand; every rule matches every
measurement of its type, and one measurement in a hundred is slow or fails. Run: ``python -m benchmarks.figures.rules``.
"""

import argparse
import random
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from callbot_latency import LatencyMetric, OperationStatus, OperationType, Thresholds
from callbot_latency.alerting import AlertPolicy
from callbot_latency.alerting.rules.engine import RuleEngine
from callbot_latency.alerting.rules.file import load_rules

PER_SECOND = 2_000
BATCHES_PER_SECOND = 10
LIMIT_PERCENT = 10.0

CONDITIONS = {
    "one": 'kind = "latency"\nthreshold_ms = 5000',
    "p50": 'kind = "p50"\nthreshold_ms = 900',
    "p95": 'kind = "p95"\nthreshold_ms = 2500',
    "p99": 'kind = "p99"\nthreshold_ms = 4000\nwindow_s = 3600',
    "mean": 'kind = "mean"\nthreshold_ms = 900',
    "errors": 'kind = "error_rate"\nthreshold_percent = 5',
    "timeouts": 'kind = "timeouts_in_a_row"\ncount = 5',
    "silence": 'kind = "no_traffic"\nwindow_s = 60',
    "operations": 'kind = "burn_rate"\nthreshold_ms = 2500\nobjective_percent = 99',
    "calls": 'kind = "burn_rate"\nper = "call"\nthreshold_ms = 2500\nobjective_percent = 95\nburn_rate = 6',
}
MATCHES = {"silence": 'operation_type = "rag_inference"', "p95": 'metadata = { queue = "sales*" }'}
HOURS = '[rule.hours]\ntime_zone = "Europe/Paris"\nfrom = "00:00"\nto = "24:00"\n'


def rules_text() -> str:
    """Ten rules, each kind among them."""
    return "\n".join(
        f'[[rule]]\nname = "{name}"\n[rule.match]\n{MATCHES.get(name, "")}\n[rule.condition]\n{condition}\n{HOURS}'
        for name, condition in CONDITIONS.items()
    )


def batches(seconds: int) -> list[list[LatencyMetric]]:
    """Measurements of twenty operations in 400 calls at a time."""
    chance = random.Random(1)
    types = list(OperationType)
    made = []
    for number in range(seconds * BATCHES_PER_SECOND):
        batch = []
        for _ in range(PER_SECOND // BATCHES_PER_SECOND):
            rare = chance.random()
            status = OperationStatus.TIMEOUT if rare < 0.005 else OperationStatus.SUCCESS
            latency_ms = chance.lognormvariate(6.2, 0.6) * (8 if rare > 0.99 else 1)
            call_sid = f"CA{number // 100 * 400 + chance.randrange(400)}"
            batch.append(
                LatencyMetric(
                    chance.choice(types), f"operation{chance.randrange(5)}", latency_ms, status, call_sid=call_sid
                )
            )
        made.append(batch)
    return made


def measured(seconds: int) -> tuple[float, int]:
    """CPU seconds that the rules and their policy took, and how many rules they were."""
    now_s = 1000.0
    policy = AlertPolicy(Thresholds(), clock=lambda: now_s)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rules.toml"
        file.write_text(rules_text())
        rules = load_rules(file)
    begin = datetime(2026, 1, 5, tzinfo=UTC)
    engine = RuleEngine(rules, policy, Thresholds(), clock=lambda: now_s, now=lambda: begin + timedelta(seconds=now_s))
    engine.start()
    spent_s, made = 0.0, batches(seconds)
    for batch in made:
        now_s += 1 / BATCHES_PER_SECOND
        if engine.opened_calls is not None:
            engine.opened_calls.extend((m.call_sid or "", None, {"queue": "sales-fr"}) for m in batch[:4])
        before_s = time.thread_time()
        engine.report(batch)
        engine.tick()
        spent_s += time.thread_time() - before_s
    return spent_s, len(rules)


def main() -> None:
    """Print the share of a core."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=120, help="of traffic; not how long it takes")
    seconds = options.parse_args().seconds
    spent_s, count = measured(seconds)
    percent = 100 * spent_s / seconds
    each_us = 1e6 * spent_s / (seconds * PER_SECOND)
    print(f"{count} rules, {PER_SECOND} measurements a second for {seconds} s of traffic")
    print(f"CPU of the worker: {percent:.2f} % of a core, {each_us:.1f} us a measurement (limit {LIMIT_PERCENT:.0f} %)")
    raise SystemExit(percent >= LIMIT_PERCENT)


if __name__ == "__main__":
    main()
