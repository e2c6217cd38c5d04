"""The bot's process, from outside: what it is told, and what it tells."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue
from typing import Any

from tests.support.subprocesses import clean_environment

_CODE = "from tests.chaos.clock import wall; wall.inject(); from tests.chaos.bot import main; main()"
PATIENCE_S = 300.0


class BotProcess:
    """Started at once; `ask` and `tell` from any thread.

    Attributes:
        progress: what it told last of how far it is.

    """

    def __init__(self, folder: Path, rate: int, settings: dict[str, str]) -> None:
        self.log = folder / "bot.log"
        self.progress: dict[str, Any] = {}
        self._answers: Queue[dict[str, Any]] = Queue()
        self._lock = threading.Lock()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CODE, f"--folder={folder}", f"--rate={rate}"],
                cwd=folder,
                env=clean_environment(settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        threading.Thread(target=self._listen, daemon=True, name="bot's words").start()

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            told = json.loads(line)
            if "pending" in told:
                self.progress = told
            else:
                self._answers.put(told)
        self._answers.put({"ended": True})

    def tell(self, do: str, **what: Any) -> None:
        """Have it do something."""
        assert self.process.stdin
        with self._lock:
            self.process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            self.process.stdin.flush()

    def told(self, key: str, patience_s: float = PATIENCE_S) -> Any:
        """What it says next, which must be that."""
        told = self._answers.get(timeout=patience_s)
        if key not in told:
            raise RuntimeError(f"the bot said {told}, not {key}; the end of its log:\n{self.log.read_text()[-3000:]}")
        return told[key]

    def account(self) -> dict[str, Any]:
        """What it knows of itself now."""
        self.tell("account")
        account: dict[str, Any] = self.told("account")
        return account

    def end(self) -> dict[str, Any]:
        """Have it end as a bot should; what it tells then."""
        self.tell("end")
        account: dict[str, Any] = self.told("account")
        self.process.wait(PATIENCE_S)
        return account

    def close(self) -> None:
        """Whatever happened: it is gone."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()
