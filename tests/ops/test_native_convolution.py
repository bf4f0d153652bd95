"""The convolution in C++: its library, sizes, orders in memory, and what happens where it cannot be made."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap

import pytest
import torch

from features import NATIVE
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.ops import grouped_convolution, native_build, native_convolution
from hope_ssm.ops import long_convolution as long
from hope_ssm.ops.long_convolution import long_convolution

pytestmark = NATIVE
LOAD = "from hope_ssm.ops import native_build; native_build.load()"
WIDTHS = {16: (), 32: ("-mavx2", "-mfma"), 64: ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mfma")}


@pytest.fixture
def nothing_built(monkeypatch, tmp_path):
    """A process that has no library yet, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native_build._library.cache_clear()
    yield tmp_path / "hope_ssm"
    native_build._library.cache_clear()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 48, 80, 512, 640, 768, 2048, 2560, 3072])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_kind_of_size(size, dtype):
    """Stages of 2, 3, 4 and 5, and nodes that are near or not."""
    assert native_convolution.ring_size(2 * size) == size
    u, k = torch.randn(2, 5, size, dtype=dtype), torch.randn(1, 5, size, dtype=dtype)
    y, exact = (long_convolution(u.to(x), k.to(x), mode=m) for x, m in ((dtype, "native"), (torch.float64, "plain")))
    assert (y - exact).norm() <= 8 * torch.finfo(dtype).eps * (2 + size).bit_length() * exact.norm() + 1e-300


@pytest.mark.parametrize("minimum", [1, 2, 3, 5, 7, 9, 11, 31, 33, 97, 1023, 1025, 8191])
def test_a_ring_is_the_smallest_that_suffices(minimum):
    fitting = [odd << a for odd in (1, 3, 5) for a in range(14) if 2 * (odd << a) >= minimum]
    assert native_convolution.ring_size(minimum) == min(fitting)


def orders(u):
    """The same numbers (B, H, L), lying in memory in many ways."""
    features = u.shape[1]
    yield "steps next", u.contiguous()
    yield "features next", u.transpose(1, 2).contiguous().transpose(1, 2)
    yield "batch next", u.movedim(0, -1).contiguous().movedim(-1, 0)
    yield "every other", torch.stack([u, u + 1], dim=-1).flatten(2)[..., ::2]
    yield "negative view", torch._neg_view(-u)
    yield "part of more", torch.cat([u, u], dim=1).transpose(1, 2).contiguous().transpose(1, 2)[:, :features]
    yield "backwards", u.flip(-1).flip(-1)


@pytest.mark.parametrize("features", [3, 16, 19])
def test_any_order_in_memory(features):
    u, k = torch.randn(3, features, 37), torch.randn(2, features, 37)
    exact = grouped_convolution.convolve(u.double(), k.double(), 4, False)
    weight = torch.randn_like(exact)
    by_u, by_k = grouped_convolution.gradients(weight, u.double(), k.double(), 4, False, True, True)
    for (name, one), (_, kernel) in zip(orders(u), orders(k), strict=True):
        operands = one.detach().requires_grad_(), kernel.detach().requires_grad_()
        y = long_convolution(*operands, ahead=4, mode="native")
        torch.testing.assert_close(y.double(), exact, rtol=1e-4, atol=1e-4, msg=name)
        for got, wanted in zip(torch.autograd.grad(y, operands, weight.float()), (by_u, by_k), strict=True):
            torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4, msg=name)


def test_expanded_gradients_and_inputs():
    """Strides of 0: y.sum() hands one number down for all."""
    u, k = torch.randn(1, 1, 20).expand(3, 10, 20).requires_grad_(), torch.randn(1, 1, 20).expand(1, 10, 20)
    found, exact = (torch.autograd.grad(long_convolution(u, k, mode=mode).sum(), u)[0] for mode in ("native", "plain"))
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_feature_does_not_reach_another(bad):
    u, k = torch.randn(2, 9, 30), torch.randn(1, 9, 30)
    exact = long_convolution(u, k, mode="native")
    u[1, 4, 7] = bad
    found = long_convolution(u, k, mode="native")
    assert not found[1, 0, 4].isfinite().all()
    found[1, 0, 4] = exact[1, 0, 4]
    assert torch.equal(found, exact)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_of_vectors(width, monkeypatch):
    """The narrow ones on every processor; the library of a wide one where this processor has it."""
    native_build.load()
    able = native_build.vector_bytes()
    if width > able:
        pytest.skip(f"this processor has vectors of {able} bytes")
    monkeypatch.setattr(native_build, "_vectors", lambda: (width, WIDTHS[width]))
    u, k = torch.randn(2, 21, 50), torch.randn(1, 21, 50)
    exact = long_convolution(u.double(), k.double(), mode="plain")
    torch.testing.assert_close(long_convolution(u, k, mode="native").double(), exact, rtol=1e-5, atol=1e-5)
    assert long_convolution(u.double(), k.double(), mode="native").sub(exact).abs().max() < 1e-12


# The library


def test_it_is_made_once_and_kept(nothing_built, monkeypatch, caplog):
    caplog.set_level("INFO", "hope_ssm.ops")
    assert native_build.available()
    assert len(list(nothing_built.iterdir())) == 1
    native_build._library.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")  # is not asked again
    native_build.load()
    assert caplog.text.count("compiled the long convolution") == 1


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [(None, "none of no-such-compiler is on the PATH"), ("echo broken >&2; exit 3", "failed with status 3 .broken.")],
)
def test_without_a_compiler(compiler, reason, nothing_built, monkeypatch, tmp_path):
    """By name it is refused with the mend; auto computes with torch's transforms."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    if compiler:
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\n{compiler}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("CXX", str(path))
    u, k = torch.randn(2, 3, 9), torch.randn(1, 3, 9)
    with pytest.raises(RuntimeError, match=f"needs a C.. compiler that makes a library.*{reason}.*apt install"):
        long_convolution(u, k, mode="native")
    with pytest.raises(RuntimeError, match="convolution='auto'"):
        FFTConvolution(3, "hope", d_state=8, horizon=9, verbose=False, convolution="native")
    assert torch.equal(long_convolution(u, k), long_convolution(u, k, mode="whole"))
    assert not list(nothing_built.glob("*"))


def test_a_cache_that_cannot_be_written(nothing_built, monkeypatch, tmp_path_factory):
    """A library of this process alone, which leaves nothing behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    nothing_built.parent.joinpath("hope_ssm").write_text("a file where the folder should be")
    u, k = torch.randn(2, 3, 9), torch.randn(1, 3, 9)
    y = long_convolution(u, k, mode="native")
    torch.testing.assert_close(y, long_convolution(u, k, mode="plain"), rtol=1e-5, atol=1e-5)
    assert not os.listdir(tempfile.gettempdir())


def test_a_compiler_with_arguments(nothing_built, monkeypatch):
    monkeypatch.setenv("CXX", "env LC_ALL=C c++")
    native_build.load()
    assert len(list(nothing_built.iterdir())) == 1


def test_a_file_that_is_not_a_library(nothing_built):
    """Left by a full disk, for example: this process has one of its own, the next one mends it."""
    subprocess.run([sys.executable, "-c", LOAD], check=True)  # a loaded library is found by its name again
    (path,) = nothing_built.iterdir()
    path.write_bytes(b"")
    for there in (False, True):
        native_build._library.cache_clear()
        assert native_build.available()
        assert path.exists() == there


@pytest.mark.slow
def test_processes_that_begin_together(nothing_built):
    processes = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert len(list(nothing_built.iterdir())) == 1


def test_without_room_it_is_grouped(monkeypatch, caplog):
    """Forward and backward; the price is said once."""

    def room(self, rings):
        return torch.empty(1 << 50)

    monkeypatch.setattr(native_convolution._Call, "room", room)
    u, k = (torch.randn(2, 3, 9).requires_grad_() for _ in range(2))
    found, exact = (
        torch.autograd.grad(long_convolution(u, k, mode=mode).sin().sum(), (u, k)) for mode in ("native", "plain")
    )
    for got, wanted in zip(found, exact, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert caplog.text.count("Grouped now") == 1
    spectrum = long.kernel_spectrum(u, k, 0, "native")
    kept = long_convolution(u.detach(), k.detach(), mode="native", spectrum=spectrum)
    torch.testing.assert_close(kept, long_convolution(u.detach(), k.detach(), mode="plain"), rtol=1e-5, atol=1e-5)


def test_other_errors_stay(monkeypatch):
    def room(self, rings):
        raise RuntimeError("something else")

    monkeypatch.setattr(native_convolution._Call, "room", room)
    with pytest.raises(RuntimeError, match="something else"):
        long_convolution(torch.randn(2, 3, 9), torch.randn(1, 3, 9), mode="native")


@pytest.mark.slow
def test_the_benchmark_counts_its_room():
    """Memory that torch's allocator gave, all of it: the process does not grow by more than is counted."""
    code = """
        import resource
        import torch
        from hope_ssm.benchmark.measure import peak_memory
        from hope_ssm.ops.long_convolution import long_convolution
        u, k = torch.randn(1, 8, 1 << 18, requires_grad=True), torch.randn(1, 8, 1 << 18, requires_grad=True)
        weight = torch.randn(1, 1, 8, 1 << 18)
        long_convolution(u[..., :64], k[..., :64], mode="native").sum().backward()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        call = lambda: torch.autograd.grad(long_convolution(u, k, mode="native"), (u, k), weight)
        call()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        print(grown, peak_memory(call, torch.device("cpu")))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    grown, counted = map(int, done.stdout.split())
    assert counted > 8 * (1 << 18) * 4 * 4
    assert grown < 1.2 * counted + 2e6


@pytest.mark.parametrize("team", [True, False])
def test_threads_of_torch_s_team_and_of_our_own(team, two_threads, monkeypatch):
    if not team:
        monkeypatch.setattr(native_convolution, "_team", lambda: None)
    u, k = torch.randn(50, 20, 300), torch.randn(1, 20, 300)
    assert native_convolution._Call(u, k, 0).threads == 2
    found = long_convolution(u, k, mode="native")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert torch.equal(found, long_convolution(u, k, mode="native"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_the_threads_it_lacks(two_threads):
    u, k = torch.randn(50, 20, 300), torch.randn(1, 20, 300)
    exact = native_convolution.convolve(u, k, 0, False)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        found = native_convolution.convolve(u, k, 0, False)
        os._exit(0 if (found.numpy() == exact.numpy()).all() else 1)  # torch's own threads do not survive either
    assert os.waitpid(child, 0)[1] == 0


def test_a_default_device_changes_nothing():
    native_convolution._plan.cache_clear()
    u, k = torch.randn(2, 3, 50), torch.randn(1, 3, 50)
    with torch.device("meta"):
        y = long_convolution(u, k, mode="native")
    torch.testing.assert_close(y, long_convolution(u, k, mode="plain"), rtol=1e-5, atol=1e-5)
