"""A run that is asked to stop: Ctrl-C, SIGTERM, SIGUSR1, and the line that goes on with it."""

from __future__ import annotations

import re
import shlex
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

STATUS = 128  # of a process that ended by a signal: this and the signal's number


class TrainingInterrupted(KeyboardInterrupt):
    """The training was asked to stop; the message says how to go on, ``status`` is for the process to end with."""

    def __init__(self, message: str = "", status: int = STATUS + signal.SIGINT) -> None:
        super().__init__(message)
        self.status = status


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


class Signals:
    """SIGTERM ends a run, SIGUSR1 asks for a checkpoint; both wait for a moment that can be gone on with exactly.

    They wait while one process trains; a second SIGTERM, and one outside of the training, ends the run at once. A
    handler that somebody else has installed is left alone, and so is everything outside of the main thread.
    """

    def __init__(self) -> None:
        self.checkpoint = False  # is wanted
        self.terminate = False  # is wanted, after it
        self.waiting = False  # for the training to look
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for name, handler in (("SIGTERM", self._on_terminate), ("SIGUSR1", self._on_checkpoint)):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                    self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def hold(self, trainer: pl.Trainer) -> None:
        """Let the signals wait from now on; Lightning's own handlers, which stop anywhere, step aside."""
        if trainer.world_size > 1:
            return
        for number in self._before:
            signal.signal(number, self._on_terminate if number == signal.SIGTERM else self._on_checkpoint)
        self.waiting = bool(self._before)

    def release(self) -> None:
        """Let SIGTERM end the run at once from now on."""
        self.waiting = self.checkpoint = False
        if self.terminate:
            raise Terminated

    def _on_terminate(self, *_: Any) -> None:
        if not self.waiting or self.terminate:
            self.terminate = True
            raise Terminated
        self.checkpoint = self.terminate = True

    def _on_checkpoint(self, *_: Any) -> None:
        self.checkpoint = self.waiting


def quoted(key: str, value: str | Path) -> str:
    """Return ``key=value`` in Hydra's grammar, whatever characters the value has."""
    from hydra.core.override_parser.types import Quote, QuotedString

    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9_./-]+", text):
        return f"{key}={text}"
    text = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)
    return f"{key}={QuotedString(text, Quote.single).with_quotes()}"


def override(key: str, value: str | Path) -> str:
    """Return ``key=value`` as it is typed in a shell, whatever characters the value has."""
    return shlex.quote(quoted(key, value))


def resume_line(command: Sequence[str], directory: Path, checkpoint: Path) -> str:
    """Return the command line that goes on from ``checkpoint`` in ``directory``; the override alone without a command.

    Args:
        command: words as typed, ``["hope", "train", …]``, or nothing.
        directory: of the run.
        checkpoint: in it.
    """
    own = ("train.ckpt=", "+train.ckpt=", "++train.ckpt=", "hydra.run.dir=")
    kept = [shlex.quote(word) for word in command if not word.startswith(own)]
    resumed = override("train.ckpt", checkpoint)
    return " ".join([*kept, resumed, override("hydra.run.dir", directory)]) if kept else resumed
