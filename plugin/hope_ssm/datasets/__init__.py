"""Data sets that both hosts use, as plain torch data sets: one file each."""
