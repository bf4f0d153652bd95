"""The ``hope`` command: one file per subcommand, each with ``run(arguments) -> exit status``."""
