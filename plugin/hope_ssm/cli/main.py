"""``hope``: the command line."""

from __future__ import annotations

import importlib
import os
import re
import sys

from hope_ssm.checks import nearest
from hope_ssm.cli.pipes import outlive_readers
from hope_ssm.extras import explained
from hope_ssm.requirements import unmet_by_imported

FULL_ERROR = "HOPE_FULL_ERROR"  # what the user said by HYDRA_FULL_ERROR, for the processes of further ranks

COMMANDS = {
    "train": "train one configuration, or a sweep with -m, in the workbench",
    "evaluate": "evaluate a trained model, also under other options of its data",
    "inspect": "Hankel singular values, ranks, memory and transfer functions of a trained model, in pictures",
    "reduce": "cut a trained model down to fewer states, with the error bounded and measured",
    "export": "a trained model as ONNX (one step) and as a program of torch.export (whole sequences)",
    "figures": "the claims of the paper as experiments: pictures, tables, verdicts",
    "runs": "list the runs below a directory",
    "report": "a sweep as one table: mean and standard deviation over seeds, sizes, speed, memory, curves",
    "data": "make the data of the Long-Range Arena, and check what is there",
    "demo": "the memory experiment: HOPE and S4D on digits followed by noise",
    "kernels": "print the registry of kernels",
    "modes": "convolution, chunks and steps of every kernel: how well they agree, and the time of a step",
    "bench": "kernels, convolutions, layers and training steps timed side by side",
    "doctor": "print versions, the host found, backends and known traps",
    "upstream": "write HOPE as a patch and a pull request for state-spaces/s4",
}


def usage() -> str:
    """Return the help text."""
    rows = "\n".join(f"  hope {name:<9}{summary}" for name, summary in COMMANDS.items())
    return f"usage: hope COMMAND [ARGUMENTS]\n\n{rows}\n\nhope COMMAND --help says more.\n"


def one_line(error: BaseException) -> str:
    """Return an error's message without its traceback; Hydra's are followed by their cause.

    An error that came while another one was handled, as when a training that failed is ended, says the first one too,
    and before itself.
    """
    said: list[str] = []
    for link in chain(error):
        text = without_traceback(str(link)).strip() or f"{type(link).__name__}, HYDRA_FULL_ERROR=1 shows where."
        cause = link.__cause__
        if cause is not None and str(cause).strip() and str(cause).strip() not in text:
            text += f" ({str(cause).strip()})"
        if not any(text in other for other in said):
            said.append(text)
    return " ".join(line.strip() for line in " – then: ".join(said).splitlines() if line.strip())


def chain(error: BaseException) -> list[BaseException]:
    """Return an error and those in whose handling it came, the first of them first; a given cause ends the search."""
    links = [error]
    while links[0].__cause__ is None and not links[0].__suppress_context__ and links[0].__context__ is not None:
        links.insert(0, links[0].__context__)
    return links


def without_traceback(text: str) -> str:
    """Return what a message quotes from another process, whose traceback it has: the error that it ends with."""
    quoted = text.rpartition("Traceback (most recent call last):")[2]
    error = re.search(r"^(?:\w+\.)*\w+: (.+)\Z", quoted, re.MULTILINE | re.DOTALL)
    return error[1] if error and quoted != text else text


def say_what_can_be_said() -> None:
    """Let ε, Σ and • become ? where the terminal or file that output goes to has no such letters."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's has not, and takes all letters
            stream.reconfigure(errors="replace")


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; an error becomes one sentence on stderr unless HYDRA_FULL_ERROR=1 asks for its traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    say_what_can_be_said()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    if arguments[0] == "--version":
        from hope_ssm import __version__

        print(f"hope-ssm {__version__}")
        return 0
    command = arguments[0]
    if command not in COMMANDS:
        print(
            f"hope: the command must be one of {', '.join(COMMANDS)}; got {command!r}.{nearest(command, COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    outlive_readers()
    full = os.environ.get(FULL_ERROR, os.environ.get("HYDRA_FULL_ERROR")) == "1"
    try:
        return importlib.import_module(f"hope_ssm.cli.{command}").run(arguments[1:])
    except KeyboardInterrupt as stop:
        print(f"hope: {str(stop) or 'interrupted.'}", file=sys.stderr)
        return getattr(stop, "status", 130)
    except BrokenPipeError:  # of a pipe that is not the standard output
        return 0
    except Exception as error:
        if full:
            raise
        said = explained(error, "this command needs") or one_line(error)
        unmet = list(unmet_by_imported(error))
        said += "." if unmet and not said.endswith(".") else ""
        print(f"hope {command}: {' '.join([said, *unmet])}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
