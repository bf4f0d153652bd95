"""The data sets that come with the workbench: functions from the options of ``dataset`` to splits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hope_ssm.checks import check_flag, check_positive_integer
from hope_ssm.datasets import cifar, digits, mnist
from hope_ssm.datasets import watch as watch_recordings
from hope_ssm.datasets.adding import Adding
from hope_ssm.datasets.copying import Copying
from hope_ssm.datasets.delay import Delay
from hope_ssm.datasets.noise_tail import NoiseTail
from hope_ssm.datasets.randomness import RandomDataset
from hope_ssm.datasets.tones import PAIRS, Tones
from hope_ssm.workbench.data.splits import Splits, pad


def noisy_digits(l_noise: int = 192, seed: int = 42) -> Splits:
    """Digits as 64 steps, then ``l_noise`` steps of noise."""
    parts = digits.digits(seed)
    tails = {name: NoiseTail(part, l_noise, seed, name) for name, part in parts.items()}
    return Splits.of(tails, d_input=1, d_output=digits.N_CLASSES)


def small_mnist(
    pool: int = 1, permute: str | bool | None = None, seed: int = 42, test_split: float = 0.2, val_split: float = 0.1
) -> Splits:
    """5000 MNIST images as 784 steps, fewer with ``pool``."""
    parts = mnist.sequential_mnist(seed, pool=pool, permute=permute, test_split=test_split, val_split=val_split)
    return Splits.of(parts, d_input=1, d_output=mnist.N_CLASSES)


def noisy_mnist(l_noise: int = 784, pool: int = 1, permute: str | bool | None = None, seed: int = 42) -> Splits:
    """5000 MNIST images as 784 steps, fewer with ``pool``, then ``l_noise`` steps of noise."""
    parts = mnist.sequential_mnist(seed, pool=pool, permute=permute)
    tails = {name: NoiseTail(part, l_noise, seed, name) for name, part in parts.items()}
    return Splits.of(tails, d_input=1, d_output=mnist.N_CLASSES)


def sequential_cifar(
    data_dir: str | None = None,
    grayscale: bool = False,
    permute: str | None = None,
    augment: bool = False,
    tokenize: bool = False,
    val_split: float = 0.1,
    seed: int = 42,
) -> Splits:
    """CIFAR-10 as 1024 steps."""
    parts = cifar.sequential_cifar(
        seed,
        data_dir=data_dir,
        grayscale=grayscale,
        permute=permute,
        augment=augment,
        tokenize=tokenize,
        val_split=val_split,
    )
    n_tokens = 256 if tokenize else None
    return Splits.of(parts, d_input=n_tokens or (1 if grayscale else 3), d_output=cifar.N_CLASSES, n_tokens=n_tokens)


def noisy_cifar(
    l_noise: int = 1024,
    data_dir: str | None = None,
    grayscale: bool = False,
    permute: str | None = None,
    augment: bool = False,
    val_split: float = 0.1,
    seed: int = 42,
) -> Splits:
    """CIFAR-10 as 1024 steps, then ``l_noise`` steps of noise."""
    parts = cifar.sequential_cifar(
        seed, data_dir=data_dir, grayscale=grayscale, permute=permute, augment=augment, val_split=val_split
    )
    tails = {name: NoiseTail(part, l_noise, seed, name) for name, part in parts.items()}
    return Splits.of(tails, d_input=1 if grayscale else 3, d_output=cifar.N_CLASSES)


def watch(seed: int = 42, n_test: int = 2, n_val: int = 1) -> Splits:
    """Shoulder exercises seen by a smartwatch, in padded batches with the lengths of the recordings."""
    parts = watch_recordings.watch(seed, n_test=n_test, n_val=n_val)
    return Splits.of(parts, d_input=watch_recordings.N_CHANNELS, d_output=watch_recordings.N_CLASSES, collate=pad)


def _drawn(
    kind: Callable[..., RandomDataset], n_train: int, n_eval: int, seed: int, static: bool, **options: Any
) -> dict:
    """The splits of an artificial data set: training samples new in every epoch unless ``static``, others fixed."""
    check_positive_integer("n_train", n_train)
    check_positive_integer("n_eval", n_eval)
    train = kind(n_train, seed, "train", check_flag("static", static), **options)
    return {"train": train, **{name: kind(n_eval, seed, name, **options) for name in ("val", "test")}}


def delay(
    l_seq: int = 1024,
    n_lag: int = 1,
    l_lag: int | None = None,
    dt: float = 0.001,
    freq: float = 100.0,
    static: bool = False,
    n_train: int = 10000,
    n_eval: int = 1000,
    seed: int = 0,
) -> Splits:
    """A band-limited signal, to repeat ``l_lag`` steps later."""
    options = {"l_seq": l_seq, "n_lag": n_lag, "l_lag": l_lag, "dt": dt, "freq": freq}
    return Splits.of(_drawn(Delay, n_train, n_eval, seed, static, **options), d_input=1, d_output=n_lag, l_output=None)


def copying(
    l_noise: int = 100,
    l_memorize: int = 10,
    n_tokens: int = 10,
    variable: bool = False,
    lag: bool = False,
    one_hot: bool = False,
    reverse: bool = False,
    static: bool = False,
    n_train: int = 10000,
    n_eval: int = 1000,
    seed: int = 0,
) -> Splits:
    """Tokens to repeat after ``l_noise`` blanks."""
    options: dict[str, Any] = {"l_noise": l_noise, "l_memorize": l_memorize, "n_tokens": n_tokens, "lag": lag}
    options |= {"variable": variable, "one_hot": one_hot, "reverse": reverse}
    return Splits.of(
        _drawn(Copying, n_train, n_eval, seed, static, **options),
        d_input=n_tokens,
        d_output=n_tokens,
        l_output=l_noise if lag else l_memorize,
        n_tokens=n_tokens,
    )


def adding(l_max: int = 1000, n_samples: int = 50000, val_split: float = 0.1, seed: int = 0) -> Splits:
    """Two marked numbers to add; ``val_split`` of ``n_samples`` for validation, and as many more to test."""
    n_eval = n_samples - int(n_samples * (1.0 - val_split))
    if not 0 < n_eval < n_samples:
        raise ValueError(f"val_split must leave training and validation samples of {n_samples}; got {val_split}.")
    parts = _drawn(Adding, n_samples - n_eval, n_eval, seed, True, l_max=l_max)
    return Splits.of(parts, d_input=2, d_output=1)


def tones(
    l_seq: int = 512,
    l_tone: int = 64,
    noise: float = 1.0,
    static: bool = False,
    n_train: int = 2000,
    n_eval: int = 1000,
    seed: int = 0,
) -> Splits:
    """Two tones of five, then noise, to name the pair."""
    options = {"l_seq": l_seq, "l_tone": l_tone, "noise": noise}
    return Splits.of(_drawn(Tones, n_train, n_eval, seed, static, **options), d_input=1, d_output=len(PAIRS))
