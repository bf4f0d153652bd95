"""Terminals and files without ε, Σ or •: the commands say the rest."""

from __future__ import annotations

import io
import sys

import pytest

from hope_ssm.cli.main import COMMANDS, main


def said(monkeypatch, encoding, *arguments):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    try:
        code = main(list(arguments))
    except SystemExit as end:
        code = end.code
    for stream in streams:
        stream.flush()
    return code, b"".join(stream.buffer.getvalue() for stream in streams).decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
def test_no_command_dies_of_a_letter(encoding, monkeypatch):
    for command in COMMANDS:
        if command != "train":  # Hydra's help, which prints plain text
            code, text = said(monkeypatch, encoding, command, "--help")
            assert code == 0, (command, text)
    code, text = said(monkeypatch, encoding, "kernels")
    assert code == 0
    assert "hope" in text
    code, text = said(monkeypatch, encoding, "evaluate", "ε•Σ→…")
    assert code == 1
    assert "hope evaluate: " in text
