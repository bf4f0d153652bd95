"""Python 3.14 formats every help text when an argument is added; one of Hydra 1.3 is no string until printed."""

from __future__ import annotations

import argparse

import pytest
from hydra._internal.utils import get_args_parser

from hope_ssm.cli.train import late_help


def test_the_parser_of_hydra_is_built_where_help_is_checked(monkeypatch):
    def check(self, action):  # as in Python 3.14
        if action.help and action.help is not argparse.SUPPRESS:
            try:
                "%" in action.help  # noqa: B015
            except TypeError as error:
                raise ValueError("badly formed help string") from error

    add = argparse.ArgumentParser.add_argument

    def add_argument(self, *words, **options):
        action = add(self, *words, **options)
        self._check_help(action)
        return action

    monkeypatch.setattr(argparse.ArgumentParser, "_check_help", check, raising=False)
    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", add_argument)
    with pytest.raises(ValueError, match="badly formed help string"):
        get_args_parser()
    with late_help():
        assert get_args_parser().parse_args(["--multirun", "train.seed=0"]).multirun
    assert argparse.ArgumentParser._check_help is check
