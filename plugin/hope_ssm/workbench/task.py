"""The Lightning module: encoder, backbone, decoder, loss and accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from hope_ssm.checks import check_choice, nearest
from hope_ssm.layers.padding import without_padding
from hope_ssm.workbench.data.batches import FirstBatch
from hope_ssm.workbench.losses import LOSSES, METRICS, steps_of, weight
from hope_ssm.workbench.models.backbone import MODELS
from hope_ssm.workbench.models.coders import DECODERS, ENCODERS
from hope_ssm.workbench.models.readout import make_readout
from hope_ssm.workbench.optimization import configure
from hope_ssm.workbench.options import instantiate
from hope_ssm.workbench.streaming import Recurrence, streams

DATA = ("the input data", "the targets")


class NonFiniteLossError(RuntimeError):
    """The training loss became infinite or NaN; the message names the layer."""


def _is_part(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def freeze(task: nn.Module, parts: Sequence[str]) -> None:
    """Train no parameter whose name is one of ``parts`` or begins with one and a dot.

    Raises:
        ValueError: a part has no parameters, or nothing is left to train.
    """
    names = [name for name, _ in task.named_parameters()]
    known = sorted({".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)})
    for part in parts:
        if part not in known:
            raise ValueError(
                f"train.frozen must list parts of the model with parameters, encoder, model and decoder for example; "
                f"got {part!r}.{nearest(part, known)}"
            )
    for name, parameter in task.named_parameters():
        if _is_part(name, parts):
            parameter.requires_grad_(False)
    if parts and not any(parameter.requires_grad for parameter in task.parameters()):
        raise ValueError(f"train.frozen must leave parameters to train; {', '.join(parts)} are all of them.")


class SequenceTask(pl.LightningModule):
    """Train a sequence model under one configuration.

    Args:
        config: plain mapping with the groups model, encoder, decoder, task, optimizer, scheduler, train, trainer.
        d_input: sizes of the data, see ``splits.Splits``.
        d_output: sizes of the data, see ``splits.Splits``.
        l_output: sizes of the data, see ``splits.Splits``.
        n_tokens: sizes of the data, see ``splits.Splits``.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        d_input: int,
        d_output: int,
        l_output: int | None = 0,
        n_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.config = config
        task = config["task"]
        self.loss = LOSSES[check_choice("task.loss", task["loss"], LOSSES)]
        if isinstance(task["metrics"], str):
            raise TypeError(f"task.metrics must be a list such as [accuracy]; got {task['metrics']!r}.")
        self.metrics = {name: METRICS[check_choice("task.metrics", name, METRICS)] for name in task["metrics"]}
        self.model = instantiate("model", MODELS, config["model"])
        data = {"d_input": d_input, "d_output": d_output, "l_output": l_output, "n_tokens": n_tokens}
        self.encoder = instantiate("encoder", ENCODERS, config["encoder"], d_model=self.model.d_model, **data)
        self.decoder = instantiate("decoder", DECODERS, config["decoder"], d_model=self.model.d_output, **data)
        self.check = FirstBatch(task["loss"], d_input, d_output, n_tokens)
        self.streams = streams(config["train"].get("state"))
        freeze(self, config["train"].get("frozen") or ())

    def train(self, mode: bool = True) -> SequenceTask:
        """Set the training mode; batch norms of frozen parts keep their statistics."""
        super().train(mode)
        for name, module in self.named_modules():
            if isinstance(module, nn.BatchNorm1d) and _is_part(name, self.config["train"].get("frozen") or ()):
                module.eval()
        return self

    def forward(
        self,
        x: Tensor,
        rate: float = 1.0,
        lengths: Tensor | None = None,
        *,
        state: list[Tensor] | None = None,
        step_scale: Tensor | None = None,
    ) -> Any:
        """Map whole sequences to predictions, or the next chunk of some to one prediction per step.

        Args:
            x: (B, L, d_input), or tokens (B, L).
            rate: relative sampling rate, 1 with a state.
            lengths: (B,) if the sequences end before L; None with a state.
            state: what ``default_state``, ``step`` or an earlier chunk gave.
            step_scale: (B, L), times between the samples in sampling periods; see ``FFTConvolution.forward``.

        Returns:
            predictions (B, d_output), or (B, l_output, d_output); with ``state`` the pair of (B, L, d_output), the
            prediction for everything heard up to each step, and the next state.
        """
        if state is None:
            return self._predict(x, None, rate, lengths, step_scale)[0]
        if lengths is not None:
            raise ValueError("a chunk with a state must not be padded; got lengths. Call each sequence by itself.")
        layers = self._split(state)
        z, after = self.model(self.encoder(x), state[:layers], rate=rate, step_scale=step_scale)
        y, carried = make_readout(self.decoder)(z, state[layers:])
        return y, [*after, *carried]

    def step(self, x: Tensor, state: list[Tensor], step_scale: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Map one sample (B, d_input), or tokens (B,), to the prediction for everything so far (B, d_output)."""
        layers = self._split(state)
        z, after = self.model.step(self.encoder(x.unsqueeze(1)).squeeze(1), state[:layers], step_scale)
        y, carried = make_readout(self.decoder)(z.unsqueeze(1), state[layers:])
        return y.squeeze(1), [*after, *carried]

    def default_state(self, batch: int) -> list[Tensor]:
        """Return the state before the first step: one tensor (B, …) per layer, then what the decoder carries.

        Raises:
            ValueError, NotImplementedError: a part has no recurrent form; the sentence names it.
        """
        self.model.setup_step()
        states = self.model.default_state(batch)
        like = next(self.parameters()).new_zeros(batch, self.model.d_output)
        return [*states, *make_readout(self.decoder).default_state(like)]

    def _split(self, state: Any) -> int:
        """The number of states of the backbone, which come first."""
        layers, more = len(self.model.layers), make_readout(self.decoder).size
        if not isinstance(state, (list, tuple)) or len(state) != layers + more:
            got = len(state) if isinstance(state, (list, tuple)) else type(state).__name__
            raise ValueError(
                f"the state must be a list of {layers + more}, one per layer and {more} of the decoder; got {got}. "
                "default_state(batch) makes one."
            )
        return layers

    def _predict(
        self, x: Tensor, state: Any, rate: float, lengths: Tensor | None, step_scale: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        padded = {} if lengths is None else {"lengths": lengths}
        y, state = self.model(self.encoder(x, **padded), state, rate=rate, step_scale=step_scale, **padded)
        padded = {} if lengths is None else {"lengths": self.model.output_lengths(lengths)}
        return self.decoder(y, **padded), state

    def _shared_step(self, batch: tuple, prefix: str, index: int) -> Tensor:
        """Loss of a batch (x, target) or (x, target, context), see ``data.batches.CONTEXT``."""
        x, target, context = self.check.batch(prefix, batch)
        stream, scale = self.streams[prefix], context.get("step_scale")
        recurrence = Recurrence(self.encoder, self.model, scale is not None)
        state = stream.before(recurrence, x, index, context.get("reset"))
        prediction, state = self._predict(x, state, 1.0, context.get("lengths"), scale)
        stream.after(state)
        self.check.target(prefix, prediction, target)
        lengths = steps_of(x, prediction, context.get("lengths"))
        loss = self.loss(prediction, target, lengths)
        values = {f"{prefix}/loss": loss}
        values |= {f"{prefix}/{name}": metric(prediction, target, lengths) for name, metric in self.metrics.items()}
        size = weight(prediction, lengths)
        self.log_dict(values, on_step=False, on_epoch=True, prog_bar=True, batch_size=size, sync_dist=True)
        return loss

    def training_step(self, batch: tuple, index: int) -> Tensor:
        """Return the loss of a batch; stop the run if it is not finite."""
        loss = self._shared_step(batch, "train", index)
        self.log_dict(self.model.metrics, on_step=False, on_epoch=True, batch_size=len(batch[0]), sync_dist=True)
        if not torch.isfinite(loss):
            place = self.first_non_finite(*batch)
            mend = "Lower the learning rate, or clip gradients with trainer.gradient_clip_val=1."
            if place in DATA:
                mend = "Look for infinite or NaN numbers in the data; no learning rate will help."
            raise NonFiniteLossError(
                f"the loss must stay finite; it is {loss.item()} in epoch {self.current_epoch}, step "
                f"{self.global_step}, first in {place}. {mend}"
            )
        return loss

    def validation_step(self, batch: tuple, index: int) -> None:
        """Log loss and metrics."""
        self._shared_step(batch, "val", index)

    def test_step(self, batch: tuple, index: int) -> None:
        """Log loss and metrics."""
        self._shared_step(batch, "test", index)

    def on_train_epoch_start(self) -> None:
        """Forget the training state."""
        self.streams["train"].restart()

    def on_validation_epoch_start(self) -> None:
        """Forget the validation state; that of training, which may go on after it, stays."""
        self.streams["val"].restart()

    def on_test_epoch_start(self) -> None:
        """Forget the test state."""
        self.streams["test"].restart()

    def configure_optimizers(self) -> Any:
        """Return optimizer and scheduler."""
        return configure(self, self.config)

    @torch.no_grad()
    def first_non_finite(self, x: Tensor, target: Tensor | None = None, context: Any = None) -> str:
        """Name the first parameter that is not finite, or else the data, or else the first layer with such outputs.

        Args:
            x: inputs of a batch.
            target: its targets.
            context: its third part, with ``lengths`` of padded sequences.
        """
        for name, parameter in self.named_parameters():
            if not torch.isfinite(parameter).all():
                return f"the parameter {name}"
        lengths = (context or {}).get("lengths")
        x = x if x.ndim < 3 else without_padding(x, lengths)
        for place, values in zip(DATA, (x, target), strict=True):
            if values is not None and not torch.isfinite(values).all():
                return place
        found: list[str] = []

        def watch(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                tensor = output[0] if isinstance(output, tuple) else output
                if isinstance(tensor, Tensor) and not torch.isfinite(tensor).all():
                    found.append(name)

            return hook

        handles = [module.register_forward_hook(watch(name)) for name, module in self.named_modules() if name]
        try:
            self(x, lengths=lengths, step_scale=(context or {}).get("step_scale"))
        finally:
            for handle in handles:
                handle.remove()
        return f"the layer {found[0]}" if found else "the loss itself"
