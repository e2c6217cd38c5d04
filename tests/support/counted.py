"""The calls that a piece of code makes, which are the same on every machine."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import callbot_latency

PACKAGE = str(Path(callbot_latency.__file__).parent)


def place(frame: FrameType | None) -> str:
    return "nobody" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def is_ours(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_code.co_filename.startswith(PACKAGE)


def is_anybodys(frame: FrameType | None) -> bool:
    return frame is not None


def calls_of(run: Callable[[], object], of: Callable[[FrameType | None], bool] = is_ours) -> list[str]:
    """The calls of ours, and by us, that `run` makes; the second time, when what loads on first use is there."""
    calls: list[str] = []

    def profile(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and of(frame):
            calls.append(f"{place(frame)} calls {called.__qualname__}")
        elif event == "call" and (of(frame) or of(frame.f_back)):
            calls.append(f"{place(frame.f_back)} calls {frame.f_code.co_qualname}")

    run()
    before = sys.getprofile()
    # What an earlier test left is finalised now, not in the middle of the run that is counted.
    gc.collect()
    gc.disable()
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(before)
        gc.enable()
    return calls


def counted(run: Callable[[], object], of: Callable[[FrameType | None], bool] = is_ours) -> int:
    """How many they are; which they are stands in the report of a test that fails."""
    calls = calls_of(run, of)
    sys.stdout.write("\n".join([*calls, "", ""]))
    return len(calls)
