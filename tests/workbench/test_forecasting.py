"""Forecasting from tables: windows in the order of time, scaled by the training rows, and better than no forecast."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hope_ssm.datasets.forecasting import forecasting
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.data import make_splits
from hope_ssm.workbench.training import train

pandas = pytest.importorskip("pandas")
MODEL = ["model=s4", "model.d_model=16", "model.n_layers=1", "model.layer.d_state=16", "trainer.accelerator=cpu"]


def table(rows=100):
    """Two stores; every value says its row, sales are 1000 more in the second, and the rows are not in order."""
    stores = [
        pandas.DataFrame({"day": range(rows), "store": name, "sales": np.arange(rows) + shift, "price": 5.0})
        for name, shift in (("a", 0.0), ("b", 1000.0))
    ]
    return pandas.concat(stores).sample(frac=1, random_state=0)


@pytest.fixture
def file(tmp_path):
    table().to_csv(tmp_path / "sales.csv", index=False)
    return tmp_path / "sales.csv"


def test_windows_are_cut_in_the_order_of_time_and_never_across_series(file):
    found = forecasting(file, 5, 2, series="store", time="day", target="sales")
    assert found.columns == ["sales", "price"]
    training = np.concatenate([np.arange(70.0), np.arange(70.0) + 1000])
    np.testing.assert_allclose(found.scaling.mean, [training.mean(), 5])
    np.testing.assert_allclose(found.scaling.deviation, [training.std(), 1])
    first = {"train": 0, "val": 65, "test": 75}  # the windows look back into the part before
    last = {"train": 63, "val": 73, "test": 93}
    for split, windows in found.parts.items():
        assert len(windows) == 2 * (last[split] - first[split] + 1)
        for index, start in ((0, first[split]), (-1, 1000 + last[split])):
            x, y = windows[index]
            rows = np.arange(start, start + 7.0)
            np.testing.assert_allclose(x[:, 0], (rows[:5] - training.mean()) / training.std(), rtol=1e-5)
            np.testing.assert_allclose(y, (rows[5:] - training.mean()) / training.std(), rtol=1e-5)
            assert x.shape == (5, 2)
            assert not x[:, 1].any()
            assert x.dtype == y.dtype == torch.float32
    splits = make_splits({"_name_": "forecasting", "path": str(file), "window": 5, "horizon": 3, "stride": 4})
    assert (splits.d_input, splits.d_output) == (3, 9)  # day, sales and price of one series, in the order of the file
    assert [i for _, i in splits.train.places] == list(range(0, 133, 4))


def test_a_parquet_file_is_the_same(file, tmp_path):
    pytest.importorskip("pyarrow")
    table().to_parquet(tmp_path / "sales.parquet")
    options = {"series": "store", "time": "day"}
    for one, other in zip(*(forecasting(file.with_suffix(kind), 5, 2, **options).parts["val"] for kind in
                            (".csv", ".parquet")), strict=True):  # fmt: skip
        assert all(map(torch.equal, one, other))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "sales.xlsx"}, r"must be a file of the kind \.csv or \.parquet; 'sales\.xlsx' is no file"),
        ({"path": None}, r"must be a \.csv or \.parquet file; got none\. Set dataset\.path=FILE\.csv"),
        ({"target": "sale"}, "the table has no column 'sale'; valid are .* Did you mean 'sales'"),
        ({"series": "shop"}, "the table has no column 'shop'"),
        ({"columns": ["store"]}, "columns must hold finite numbers in every row; the column 'store' does not"),
        ({"window": 99, "series": "store"}, "'a' has 100 rows, too few for the part train"),
        ({"test_split": 0.9}, r"must leave rows to train on; got 0\.1 and 0\.9"),
        ({"horizon": 0}, "horizon must be a whole number of at least 1; got 0"),
    ],
)
def test_refusals(file, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        forecasting(**{"path": file, "window": 5, "horizon": 2} | options)


@pytest.mark.slow
def test_forecasts_are_better_than_the_last_value(tmp_path):
    """Two noisy waves of periods that a window has: the error is far below that of the mean and of the last row."""
    t = np.arange(500)
    noise = np.random.default_rng(0).normal(size=(500, 2)) * 0.1
    waves = np.stack([np.sin(t / 3) + 100, 5 * np.sin(t / 5)], 1) + noise
    pandas.DataFrame(waves, columns=["a", "b"]).to_csv(tmp_path / "waves.csv", index=False)
    data = [f"dataset.path={tmp_path / 'waves.csv'}", "dataset.window=40", "dataset.horizon=6"]
    config = compose(
        ["pipeline=forecasting", "kernel=hope", *data, *MODEL, "optimizer.lr=0.01", "trainer.max_epochs=8"]
    )
    test = make_splits(config["dataset"]).test
    last = torch.stack([(x[-1].repeat(6) - y).square().mean() for x, y in test]).mean()
    run = train(config, tmp_path / "run", callbacks=[])
    assert run.metrics["test/mse"] < 0.25 * last
    assert run.metrics["test/mse"] < 0.25


def test_the_task_sets_what_belongs_to_it():
    """Monitor, mode and decoder; a line of the user's own still wins, in any order."""
    config = compose(["pipeline=own", "task=regression"])
    assert (config["train"]["monitor"], config["train"]["mode"], config["decoder"]["mode"]) == (
        "val/loss",
        "min",
        "last",
    )
    config = compose(["decoder.mode=pool", "train.monitor=train/loss", "task=regression", "pipeline=own"])
    assert (config["train"]["monitor"], config["train"]["mode"], config["decoder"]["mode"]) == (
        "train/loss", "min", "pool",
    )  # fmt: skip
    config = compose(["pipeline=own", "task=multilabel_classification"])
    assert (config["train"]["monitor"], config["decoder"]["mode"]) == ("val/loss", "pool")
    config = compose(["pipeline=own"])
    assert (config["train"]["monitor"], config["train"]["mode"], config["decoder"]["mode"]) == (
        "val/accuracy", "max", "pool",
    )  # fmt: skip
