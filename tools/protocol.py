"""The comparisons of docs/results.md that follow its protocol: runs, choices, tables, pictures, the check.

python tools/protocol.py run NAME …   the runs that docs/results/NAME/runs.csv lacks, each appended when it is finished
python tools/protocol.py page         the tables and pictures of docs/results.md, made again from those files
python tools/protocol.py check        exit status 1 where the page differs from them

A run is a subprocess with one thread, in runs/protocol/NAME/…, and goes on where it was stopped. Two calls beside each
other share the work: a run that the other one is making is left to it, and the next one is taken. RESULTS_RUNNER is a
command to start it with, "nice -n 10" for example.
"""

from __future__ import annotations

import argparse
import sys

import protocol_page
import protocol_runs
import protocol_tasks


def main(arguments: list[str]) -> int:
    """Run one of the three commands of the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "page", "check"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"for run: {', '.join(protocol_tasks.TASKS)}")
    parser.add_argument("--rows", metavar="ROW;ROW", help="for run: only these rows of the table, in this order")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in protocol_tasks.TASKS:
            parser.error(f"NAME must be one of {', '.join(protocol_tasks.TASKS)}; got {name}")
        rows = list(protocol_tasks.TASKS[name].rows)
        chosen = options.rows.split(";") if options.rows else rows
        if unknown := [row for row in chosen if row not in rows]:
            parser.error(f"--rows of {name} must be some of {'; '.join(rows)}; got {unknown[0]}")
        protocol_runs.run_all(name, chosen)
    if options.command == "run":
        return 0
    made = protocol_page.made()
    differing = [path for path, text in made.items() if path.read_text(encoding="utf-8") != text]
    if options.command == "check" and differing:
        print(f"{differing[0].name} must say what docs/results/*/runs.csv say; it differs. Run tools/results --page.")
        return 1
    if options.command == "page":
        for path, text in made.items():
            path.write_text(text, encoding="utf-8")
        for name in protocol_tasks.TASKS:
            protocol_page.picture(name)
            if name == protocol_page.IN_README:
                protocol_page.memory_picture()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
