"""Overrides for the smallest training of the workbench."""

from __future__ import annotations

TINY = [
    "pipeline=noisy-digits",
    "model=s4",
    "model.d_model=8",
    "model.n_layers=1",
    "model.layer.d_state=8",
    "dataset.l_noise=16",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "+trainer.limit_test_batches=1",
]
