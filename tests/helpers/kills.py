"""Kill runs at random moments, resume them, and compare them with undisturbed ones.

python tests/helpers/kills.py --count 200 --out DIR --tmp OTHER_FILE_SYSTEM

Every run is a forked process that is killed with SIGKILL: half of them at a moment drawn from the whole run, half as a
checkpoint is being written. Then everything on the disk must be readable, and ``train.ckpt=auto`` must end with the
weights, the best checkpoint, the table of epochs and the results of the undisturbed run, bit for bit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.resuming import read_checkpoint
from hope_ssm.workbench.run_directory import DONE, RunDirectory
from hope_ssm.workbench.survey import damage
from hope_ssm.workbench.training import train

SMALL = [
    *("pipeline=noisy-digits", "model=s4", "kernel=hope", "model.d_model=8", "model.n_layers=1"),
    *("model.layer.d_state=8", "dataset.l_noise=16", "trainer.accelerator=cpu", "train.tensorboard=false"),
    *("++trainer.enable_progress_bar=false", "++trainer.enable_model_summary=false", "loader.batch_size=20"),
    *("trainer.limit_train_batches=6", "trainer.limit_val_batches=2", "++trainer.limit_test_batches=1"),
    *("model.dropout=0.2", "optimizer.lr=0.02"),
]
CONFIGURATIONS = {
    "plain": ["scheduler.T_max=4"],
    "averaged": ["train.ema=0.9", "model.norm=batch", "scheduler=cosine_warmup", "scheduler.num_training_steps=24"],
    "workers": ["scheduler.T_max=4", "loader.num_workers=1", "++loader.persistent_workers=true"],
    "chunks": ["scheduler.T_max=4", "loader.chunk_len=40", "++train.state={mode: tbptt}"],
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "train.monitor=train/loss", "train.mode=min"],
}
LIMITS = {
    "max_epochs": ["trainer.max_epochs=4"],
    "max_steps": ["trainer.max_epochs=null", "++trainer.max_steps=21"],
    "both": ["trainer.max_epochs=4", "++trainer.max_steps=20"],
    "max_time": ["trainer.max_epochs=4", "++trainer.max_time={seconds: 0.15}"],
    "val_check_interval": ["trainer.max_epochs=4", "++trainer.val_check_interval=0.5"],
    "check_val_every_n_epoch": ["trainer.max_epochs=4", "++trainer.check_val_every_n_epoch=2"],
    "accumulate_grad_batches": ["trainer.max_epochs=4", "++trainer.accumulate_grad_batches=4"],
}


@cache
def composed(*overrides: str) -> dict[str, Any]:
    """The configuration, composed once."""
    return compose(list(overrides))


def start(directory: Path, overrides: list[str]) -> int:
    """Train in a process of its own; return its number."""
    config = composed(*SMALL, *overrides, "train.ckpt=auto")
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        train(config, directory, callbacks=[])
        code = 0
    except BaseException:
        (directory.parent / f"{directory.name}.error").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def finish(directory: Path, overrides: list[str]) -> None:
    """Start until the run is finished, as often as its time asks for."""
    for _ in range(40):
        _, status = os.waitpid(start(directory, overrides), 0)
        if status:
            raise AssertionError((directory.parent / f"{directory.name}.error").read_text())
        if RunDirectory(directory).state == "finished":
            return
    raise AssertionError(f"{directory} is {RunDirectory(directory).state} after 40 starts")


def kill(directory: Path, overrides: list[str], seconds: float, dice: random.Random) -> None:
    """Start a run and kill it, at a moment of the whole, or within a write."""
    number, begun = start(directory, overrides), time.monotonic()
    if dice.random() < 0.5:
        time.sleep(dice.uniform(0, seconds))
    else:
        writes, seen, there = dice.randint(1, 8), 0, False
        while seen < writes and not os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            now = any(name.endswith(".partial") for name in _names(directory / "checkpoints"))
            seen, there = seen + (now and not there), now
            if time.monotonic() - begun > 60:
                break
        time.sleep(dice.choice([0, 0, dice.uniform(0, 0.002)]))
    os.killpg(number, signal.SIGKILL) if _leads(number) else os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)


def _leads(number: int) -> bool:
    try:
        return os.getpgid(number) == number
    except ProcessLookupError:
        return False


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def torn(directory: Path) -> list[str]:
    """What on the disk cannot be read."""
    found = []
    for path in directory.glob("checkpoints/*.ckpt"):
        try:
            read_checkpoint(path)
        except ValueError as error:
            found.append(str(error))
    if (directory / "run.json").is_file() and (why := damage(RunDirectory(directory))):
        found.append(why)
    return found


def differences(directory: Path, whole: Path) -> list[str]:
    """In what a run differs from the undisturbed one."""
    found = []
    for name in ("last", "best"):
        ours, theirs = (path / "checkpoints" / f"{name}.ckpt" for path in (directory, whole))
        if not theirs.is_file() and not ours.is_file():
            continue
        first, second = read_checkpoint(ours), read_checkpoint(theirs)
        if first["global_step"] != second["global_step"]:
            found.append(f"{name}.ckpt is of step {first['global_step']}, not {second['global_step']}")
        for key, value in second["state_dict"].items():
            if not torch.equal(first["state_dict"][key], value):
                found.append(f"{name}.ckpt differs in {key}")
                break
    ours, theirs = RunDirectory(directory), RunDirectory(whole)
    if ours.epochs != theirs.epochs:
        found.append(f"epochs {ours.epochs} instead of {theirs.epochs}")
    aside = ("train/steps_per_second", "train/peak_memory_mib")
    if {k: v for k, v in ours.results.items() if k not in aside} != {
        k: v for k, v in theirs.results.items() if k not in aside
    }:
        found.append(f"results {ours.results} instead of {theirs.results}")
    if min(ours.results[name] for name in aside) <= 0:
        found.append(f"no speed or memory in {ours.results}")
    return found


def campaign(count: int, out: Path, seed: int = 0, combinations: list[tuple[str, str]] | None = None) -> Counter:
    """Kill ``count`` runs; return how many were right, torn, wrong, and what was seen on the way."""
    dice = random.Random(seed)
    combinations = combinations or list(itertools.product(CONFIGURATIONS, LIMITS))
    tally: Counter = Counter()
    undisturbed: dict[str, tuple[Path, float]] = {}
    order = list(itertools.islice(itertools.cycle(dice.sample(combinations, len(combinations))), count))
    for number, (configuration, limit) in enumerate(order):
        overrides = [*CONFIGURATIONS[configuration], *LIMITS[limit]]
        reference = "max_epochs" if limit == "max_time" else limit
        key = f"{configuration}-{reference}"
        if key not in undisturbed:
            begun = time.monotonic()
            finish(out / key, [*CONFIGURATIONS[configuration], *LIMITS[reference]])
            undisturbed[key] = out / key, time.monotonic() - begun
        whole, seconds = undisturbed[key]
        directory = out / f"killed-{number}"
        problems = []
        for _ in range(dice.choice([1, 1, 1, 2, 3])):
            kill(directory, overrides, seconds, dice)
            state = RunDirectory(directory).state
            tally[f"state after the kill: {state}"] += 1
            tally["partial files left by the kill"] += len(list(directory.rglob("*.partial")))
            if broken := torn(directory):
                tally["torn"] += 1
                problems += broken
            if state in DONE:
                break
        try:
            finish(directory, overrides)
            wrong = differences(directory, whole)
        except AssertionError as error:
            wrong = [str(error)]
        tally["wrong"] += bool(wrong)
        tally["right"] += not (wrong or problems)
        for problem in [*problems, *wrong]:
            print(f"{directory.name} {configuration} {limit}: {problem}", flush=True)
        if not (wrong or problems):
            shutil.rmtree(directory)
    return tally


def main() -> int:
    """Run a campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="an empty folder for the runs")
    parser.add_argument("--tmp", type=Path, help="TMPDIR, on another file system")
    options = parser.parse_args()
    if options.tmp is not None:
        os.environ["TMPDIR"], tempfile.tempdir = str(options.tmp), str(options.tmp)
        if os.stat(options.tmp).st_dev == os.stat(options.out).st_dev:
            parser.error("--tmp must be on another file system than --out")
    logging.disable(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    begun = time.monotonic()
    tally = campaign(options.count, options.out, options.seed)
    print(json.dumps({**tally, "seconds": round(time.monotonic() - begun)}, indent=1))
    return 0 if tally["right"] == options.count else 1


if __name__ == "__main__":
    sys.exit(main())
