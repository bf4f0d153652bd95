"""The steps of tools/gpu: tests on the device, benchmark, short trainings; every step's log and one page of tables.

A step that fails or takes too long is noted, and the next one begins; the status is 1 then.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOPE = [sys.executable, "-m", "hope_ssm.cli.main"]
LENGTHS = (1024, 4096, 16384, 65536)


@dataclass(frozen=True)
class Step:
    """A command with the seconds that it may take, and the file that it leaves for the page, if any."""

    name: str
    command: Sequence[str]
    seconds: int
    table: Path | None = None


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; what is after ``train`` are overrides of hope train."""
    parser = argparse.ArgumentParser(prog="tools/gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="the same steps on the CPU, tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="where everything goes (default: runs/gpu)")
    parser.add_argument("what", nargs="*", metavar="train OVERRIDE …", help="one training instead, for eight minutes")
    options = parser.parse_args(arguments)
    if options.what and options.what[0] != "train":
        parser.error(f"the command must be train with its overrides, or nothing; got {options.what[0]!r}.")
    return options


def steps(out: Path, rehearse: bool) -> list[Step]:
    """Return what is to be done, in order."""
    device = "cpu" if rehearse else "cuda"
    tests = [sys.executable, "-m", "pytest", "tests/devices", "--device", device, "-rs", "-p", "no:cacheprovider"]
    bench = [*HOPE, "bench", "--device", device, "--out", str(out / "bench")]
    train = [*HOPE, "train", "experiment=hope/noisy-digits", f"trainer.accelerator={'cpu' if rehearse else 'gpu'}"]
    train += ["scheduler=constant", "++trainer.enable_progress_bar=false", "loader.num_workers=0"]
    if rehearse:
        tests += ["-m", "not slow", "-k", "test_kernels or test_long or test_optimizers or triton or cuda"]
        bench += ["--features=4", "--d-state=4", "--length=32", "--batch=2", "--repetitions=3", "--lengths=16,32"]
        train += ["model.n_layers=1", "model.d_model=4", "model.layer.d_state=4", "dataset.l_noise=16"]
        train += ["trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "++trainer.limit_test_batches=1"]
    else:
        bench += ["--repetitions=10", "--seconds=0.5", f"--lengths={','.join(map(str, LENGTHS))}"]
    sweep = ["-m", "+trainer.precision=32-true,bf16-mixed", f"hydra.sweep.dir={out / 'train' / 'precisions'}"]
    compiled = [f"train.compile={'aot_eager' if rehearse else 'true'}", f"hydra.run.dir={out / 'train' / 'compiled'}"]
    first, more = (1, 2) if rehearse else (3, 4)
    report = [*HOPE, "report", str(out / "train"), "--out", str(out / "report")]
    return [
        *extension(out, rehearse),
        Step("tests", tests, 200),
        Step("bench", bench, 150, out / "bench" / "table.md"),
        Step("train", [*train, *sweep, f"trainer.max_epochs={first}"], 60),
        Step("train-resumed", [*train, *sweep, f"trainer.max_epochs={more}", "train.ckpt=auto"], 40),
        Step("train-compiled", [*train, *compiled, f"trainer.max_epochs={first}"], 60),
        Step("report", report, 30, out / "report" / "report.md"),
    ]


def extension(out: Path, rehearse: bool) -> list[Step]:
    """The host's CUDA kernels compiled, where there are the host, a compiler and a GPU."""
    host = os.environ.get("STATE_SPACES_HOME")
    if rehearse or not host or shutil.which("nvcc") is None:
        return []
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    return [Step("host-extension", [*pip, "--target", str(out / "extension"), f"{host}/extensions/kernels"], 150)]


def training(out: Path, overrides: Sequence[str], rehearse: bool) -> list[Step]:
    """Some minutes of one training, from where the last call with the same overrides ended."""
    name = re.sub(r"[^\w.+-]+", "-", " ".join(overrides))[:80]
    where = ["trainer.accelerator=cpu"] if rehearse else ["trainer.accelerator=gpu", "++trainer.precision=bf16-mixed"]
    given = [f"++trainer.max_time=00:00:{'00:30' if rehearse else '08:00'}", *where, *overrides]
    run = ["train.ckpt=auto", "++trainer.enable_progress_bar=false", f"hydra.run.dir={out / name}"]
    return [Step("train", [*HOPE, "train", *given, *run], 590)]


def environment(out: Path, rehearse: bool) -> Mapping[str, str]:
    """The variables of every step: the extension is importable, and Triton interprets where there is no GPU."""
    path = os.pathsep.join(filter(None, (str(out / "extension"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **({"TRITON_INTERPRET": "1"} if rehearse else {})}


def run(step: Step, out: Path, variables: Mapping[str, str]) -> dict[str, object]:
    """Run a step, with its output in a file and the end of it on the screen where it fails."""
    log, began = out / f"{step.name}.log", time.perf_counter()
    print(f"== {step.name}: {' '.join(step.command[1:])}", flush=True)
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(
                step.command, cwd=ROOT, env=variables, stdout=file, stderr=subprocess.STDOUT, timeout=step.seconds
            )
            state = "done" if done.returncode == 0 else f"failed with status {done.returncode}"
        except subprocess.TimeoutExpired:
            state = f"stopped after {step.seconds} s"
    said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    print("\n".join(said[-1:] if state == "done" else said[-30:]), flush=True)
    took = time.perf_counter() - began
    print(f"   {state}, {took:.0f} s", flush=True)
    return {"step": step.name, "state": state, "seconds": round(took, 1), "last_line": said[-1] if said else ""}


def choice(results: Path, device: str) -> str:
    """Return which backend was fastest at every length, and which one ``auto`` takes."""
    import torch

    from hope_ssm.ops import backends

    found = json.loads(results.read_text(encoding="utf-8"))
    fastest = {}
    for length, rows in found["sweeps"].get("L", {}).items():
        times = {
            row["name"]: sorted(row["seconds"]["forward+backward"])[len(row["seconds"]["forward+backward"]) // 2]
            for row in rows
            if row["name"].removeprefix("hope-") in backends.MODULES and row["seconds"]
        }
        if times:
            fastest[length] = min(times, key=times.__getitem__)
    taken = backends.automatic(torch.device(device))
    rows = ", ".join(f"{name} at L = {length}" for length, name in fastest.items())
    return f"Fastest, forward + backward: {rows}. auto takes hope-{taken}."


def main(arguments: Sequence[str]) -> int:
    """Run all steps; write ``summary.md`` and ``steps.json``."""
    options = parse(arguments)
    import torch

    from hope_ssm.reporting.machine import machine
    from hope_ssm.reporting.tables import markdown_table

    device = "cpu" if options.rehearse else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        print("tools/gpu must run where torch sees a GPU; got none. --rehearse runs on the CPU.", file=sys.stderr)
        return 1
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    todo = training(out, options.what[1:], options.rehearse) if options.what else steps(out, options.rehearse)
    variables = environment(out, options.rehearse)
    done = [run(step, out, variables) for step in todo]
    (out / "steps.json").write_text(json.dumps({"machine": machine(device), "steps": done}, indent=1), "utf-8")
    parts = [f"# {'Rehearsal on' if options.rehearse else ''} {machine(device)}".replace("#  ", "# ")]
    parts.append(markdown_table([["step", "state", "seconds", "last line"]] + [
        [str(row["step"]), str(row["state"]), str(row["seconds"]), str(row["last_line"]).replace("|", "\\|")]
        for row in done
    ]))  # fmt: skip
    parts += [
        f"## {step.name}\n\n{step.table.read_text('utf-8')}" for step in todo if step.table and step.table.exists()
    ]
    if (out / "bench" / "results.json").exists():
        parts.append(choice(out / "bench" / "results.json", device))
    (out / "summary.md").write_text("\n\n".join(parts) + "\n", "utf-8")
    print(f"Tables, logs and numbers: {out}/summary.md, steps.json")
    return int(any(row["state"] != "done" for row in done))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
