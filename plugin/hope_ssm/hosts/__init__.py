"""Codebases that HOPE lives in: one file each."""
