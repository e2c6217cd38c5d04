"""`make soak`: a run of 10 minutes, or of as many seconds as are asked for."""

import argparse
import secrets
import sys

from devservers.stack import command
from tests.chaos.run import Run, say


def main() -> int:
    """Exit status 1 where the law is broken."""
    parser = argparse.ArgumentParser(prog="make soak ARGS=...", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for how long things go wrong (%(default)g)")
    parser.add_argument("--seed", type=int, help="of what goes wrong (a random one)")
    parser.add_argument("--rate", type=int, default=500, help="measurements a second beside the calls' (%(default)s)")
    parser.add_argument("--calls", type=int, default=4, help="calls at once (%(default)s)")
    parser.add_argument(
        "--protocol", choices=("grpc", "http/protobuf"), default="grpc", help="of OTLP to the Collector (%(default)s)"
    )
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    say(f"seed {seed}")
    run = Run(seed, options.seconds, say, rate=options.rate, lines=options.calls, protocol=options.protocol)
    return 1 if run.judged() else 0


if __name__ == "__main__":
    sys.exit(command(main))
