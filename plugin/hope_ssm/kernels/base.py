"""The interface between a convolution kernel and the layer that holds it, as state-spaces/s4 calls it.

A kernel is a module built with keywords only, that maps its parameters to a convolution kernel:

    kernel(L=, rate=, state=) -> (k (C, H, L) real, response (B, C, H, L) to the state, or None)
    kernel.step(u (B, H), state) -> (y (B, C, H), state)
    kernel.forward_state(u (B, H, L), state) -> state
    kernel.default_state(*batch_shape) -> state

Parameters carry ``_optim``, a dictionary of the optimizer options that differ from the global ones; the host makes
one parameter group of each distinct dictionary. Axes: B batch, C channels, H features (d_model), L samples.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.checks import (
    check_choice,
    check_flag,
    check_known,
    check_positive_integer,
    check_positive_number,
    check_real,
    log_once,
    option_names,
)
from hope_ssm.kernels.cache import KernelCache
from hope_ssm.kernels.initialization import sampling_periods
from hope_ssm.kernels.optimizer_options import ModuleWithOptions, OptimizerOption, check_setting
from hope_ssm.precision import working_dtype

_logger = logging.getLogger("hope_ssm.kernels")

# Options the host's S4 configurations pass to every kernel and that mean something to S4 alone.
S4_OPTIONS = frozenset(
    {"backend", "bandlimit", "comp", "disc", "dt_fast", "dt_tie", "efficient_bidirectional", "imag_transform"}
    | {"init_args", "imag_scale", "is_real", "measure", "rank", "real_transform"}
)


def softplus_inverse(x: Tensor) -> Tensor:
    """log(eˣ - 1) = x + log(-expm1(-x)), without overflow."""
    return x + torch.log(-torch.expm1(-x))


TRANSFORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "exp": (torch.exp, torch.log),
    "softplus": (nn.functional.softplus, softplus_inverse),
}


class SequenceKernel(ModuleWithOptions):
    """What all kernels share: sizes, sampling periods, learning rates by name, and checks of all options.

    Args:
        d_model: H, the number of features.
        channels: C, kernels per feature (twice as many when the layer is bidirectional).
        l_max: longest kernel the layer asks for, or None; used when ``forward`` is called without ``L``.
        dt_min: least initial sampling period, if the kernel has any; None means 0.001.
        dt_max: greatest initial sampling period; None means 0.1.
        dt_transform: ``"exp"`` or ``"softplus"``, how the positive sampling period is parameterized; None means
            ``"softplus"``.
        n_ssm: independent copies of the tied parameters; must divide ``d_model``; None means ``d_model``.
        deterministic: no random numbers in the initialization.
        lr: learning rate: a mapping by name, one number, or None (inherit).
        wd: weight decay, likewise.
        verbose: whether to log options that have no effect.
        **options: other options of the configuration. One that belongs to another kernel is logged; one that belongs
            to none is refused.
    """

    name = "kernel"
    optimizer_options: dict[str, OptimizerOption]
    idle_optimizer_options: tuple[str, ...] = ()
    idle_options: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        d_model: int,
        channels: int = 1,
        l_max: int | None = None,
        dt_min: float | None = None,
        dt_max: float | None = None,
        dt_transform: str | None = None,
        n_ssm: int | None = None,
        deterministic: bool = False,
        lr: float | Mapping[str, float | None] | None = None,
        wd: float | Mapping[str, float | None] | None = 0.0,
        verbose: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        self.verbose = check_flag("verbose", verbose)
        # A shared option that a kernel has no use for is said to be idle like any other, and then as good as not given.
        shared = {"n_ssm": n_ssm, "dt_min": dt_min, "dt_max": dt_max, "dt_transform": dt_transform}
        self._check_options(options | {key: value for key, value in shared.items() if key in self.idle_options})
        n_ssm = None if "n_ssm" in self.idle_options else n_ssm
        dt_min = None if "dt_min" in self.idle_options else dt_min
        dt_max = None if "dt_max" in self.idle_options else dt_max
        dt_transform = None if "dt_transform" in self.idle_options else dt_transform
        self.d_model = check_positive_integer("d_model", d_model)
        self.channels = check_positive_integer("channels", channels)
        self.l_max = None if l_max is None else check_positive_integer("l_max", l_max)
        self.n_ssm = self.d_model if n_ssm is None else check_positive_integer("n_ssm", n_ssm)
        if self.d_model % self.n_ssm:
            raise ValueError(f"n_ssm must divide d_model; got n_ssm={self.n_ssm} and d_model={self.d_model}.")
        self.deterministic = check_flag("deterministic", deterministic)
        self.dt_min, self.dt_max = 0.001 if dt_min is None else dt_min, 0.1 if dt_max is None else dt_max
        dt_transform = "softplus" if dt_transform is None else dt_transform
        self.dt_transform = check_choice("dt_transform", dt_transform, TRANSFORMS)
        self.lr, self.wd = self._check_setting("lr", lr), self._check_setting("wd", wd)
        self.cache = KernelCache()

    def __init_subclass__(cls, **options: Any) -> None:
        """Give the constructor the signature of all it takes: what it passes on and is not idle, then its own."""
        super().__init_subclass__(**options)
        named = {
            parameter.name: parameter
            for base in reversed(cls.__mro__)
            if issubclass(base, SequenceKernel) and "__init__" in vars(base)
            for parameter in inspect.signature(base.__init__).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY and (base is cls or parameter.name not in cls.idle_options)
        }
        rest = inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD, annotation=Any)
        cls.__signature__ = inspect.Signature([*named.values(), rest])  # type: ignore[attr-defined]

    def _check_setting(self, option: str, setting: Any) -> float | Mapping[str, float] | None:
        checked, idle = check_setting(option, setting, self.optimizer_options.values(), self.idle_optimizer_options)
        for key in idle:
            self._say(f"{self.name}: {option}.{key} has no effect, there is no {key} to train.")
        return checked

    def _say(self, message: str, level: int = logging.INFO) -> None:
        if self.verbose:
            log_once(_logger, level, message)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Log the options that belong to other kernels; raise ``TypeError`` for those that belong to none."""
        unknown = [key for key in options if key not in self.idle_options]
        check_known(f"the {self.name} kernel", unknown, option_names(type(self)))
        idle = [f"{key}={value}" for key, value in options.items() if value is not None]
        if idle:
            self._say(f"{self.name}: the options {', '.join(idle)} of other kernels have no effect.")

    def register(self, name: str, tensor: Tensor) -> None:
        """Make ``tensor`` a parameter with its own optimizer options, or a buffer if it is frozen by ``lr``."""
        option = self.optimizer_options[name]
        lr, wd = option.of(self.lr), option.of(self.wd)
        tensor = tensor.to(torch.get_default_dtype())
        if lr == 0:
            self.register_buffer(name, tensor)
            return
        given = {"lr": lr, "weight_decay": wd}
        self.parameter_options[name] = {key: value for key, value in given.items() if value is not None}
        self.register_parameter(name, nn.Parameter(tensor))

    def register_sampling_period(self, name: str, count: int) -> None:
        """Draw ``count`` sampling periods and register their inverse transform under ``name``."""
        dt = sampling_periods(count, self.dt_min, self.dt_max, deterministic=self.deterministic)
        self.register(name, TRANSFORMS[self.dt_transform][1](dt))

    def transformed(self, raw: Tensor) -> Tensor:
        """Return the positive sampling period of a raw parameter, in float32 at least."""
        return TRANSFORMS[self.dt_transform][0](raw.to(working_dtype(raw)))

    def per_feature(self, tied: Tensor) -> Tensor:
        """Repeat n_ssm copies along the first axis to d_model: feature h uses copy h mod n_ssm."""
        return tied.repeat(self.d_model // tied.shape[0], *[1] * (tied.ndim - 1))

    def kernel_length(self, length: int | None) -> int:
        """Return the length asked for, or l_max; raise ``ValueError`` if neither says."""
        if length is None and self.l_max is None:
            raise ValueError("the kernel's length must be given as L when l_max is None; got neither.")
        return check_positive_integer("L", self.l_max if length is None else length)

    @staticmethod
    def check_rate(rate: float) -> float:
        """Return the relative sampling rate if it is a finite number above 0."""
        return check_positive_number("rate", rate)

    def check_no_rate(self, rate: float) -> None:
        """Raise unless the relative sampling rate is 1; for kernels without a sampling period."""
        if self.check_rate(rate) != 1:
            raise ValueError(
                f"the rate of the {self.name} kernel must be 1, because it has no sampling period; got {rate}."
            )

    def _setup_step(self, **kwargs: Any) -> None:
        """Do nothing: ``step`` reads the parameters every time, so it always is the same system as ``forward``."""
        kwargs.pop("mode", None)
        if kwargs:
            raise TypeError(f"setup_step has no option {next(iter(kwargs))!r}; it takes none.")

    @property
    def d_state(self) -> int:
        """Size of the state of one channel-free layer, flattened; 0 without a recurrent mode."""
        try:
            return math.prod(self.default_state().shape)
        except NotImplementedError:  # a property must not raise it: whoever lists a module's members reads them all
            return 0

    @property
    def state_to_tensor(self) -> Callable[[Tensor], Tensor]:
        """A function that flattens a state (..., H, N) to (..., H·N)."""
        return lambda state: state.flatten(-2)

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return a zero state for a batch."""
        raise NotImplementedError(f"the {self.name} kernel has no recurrent mode.")

    def check_state(self, state: Any) -> Tensor:
        """Return ``state`` if ``default_state(batch)`` could have made it; otherwise raise."""
        like = self.default_state(1)
        kind = "complex" if like.is_complex() else "real"
        wanted = f"the state must be {kind} of shape (batch, {', '.join(map(str, like.shape[1:]))})"
        if not isinstance(state, Tensor) or state.is_complex() != like.is_complex():
            got = state.dtype if isinstance(state, Tensor) else type(state).__name__
            raise TypeError(f"{wanted}; got {got}. default_state(batch) makes one.")
        if state.shape[1:] != like.shape[1:]:
            raise ValueError(f"{wanted}; got shape {tuple(state.shape)}. default_state(batch) makes one.")
        if state.dtype != like.dtype:
            raise TypeError(f"the state must be {like.dtype}, as default_state(batch) makes it; got {state.dtype}.")
        return state.resolve_conj().resolve_neg()

    def check_inputs(self, u: Tensor, state: Any, axes: str) -> Tensor:
        """Return ``state`` if it fits inputs u (B, H) or (B, H, L), as ``axes`` says; otherwise raise."""
        if u.ndim != len(axes.split(", ")) or u.shape[1] != self.d_model or 0 in u.shape[2:]:
            raise ValueError(f"u must have shape ({axes}) with H = d_model = {self.d_model}; got {tuple(u.shape)}.")
        check_real("u", u)
        if isinstance(u.shape[-1], torch.SymInt):
            raise ValueError("a chunk with a state must have a fixed length in torch.export; got a dynamic one.")
        state = self.check_state(state)
        if len(state) != len(u):
            raise ValueError(
                f"u and the state must have one batch size; got {len(u)} and {len(state)}. "
                "default_state(batch) makes a state."
            )
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = set(self.state_dict(keep_vars=True))  # with those of parametrizations, and of pruning
        held = {key[len(prefix) :] for key in state_dict if key.startswith(prefix)}
        if held - own and own - held:  # torch refuses it, unless strict=False asks for what fits
            self._say(
                f"the checkpoint must hold a {self.name} kernel at {prefix.rstrip('.') or 'the top'!r} "
                f"({', '.join(sorted(own))}); it holds another kernel ({', '.join(sorted(held))}). "
                "Load it into a model with the kernel it was trained with.",
                logging.WARNING,
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
