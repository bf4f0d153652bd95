"""A kernel kept in evaluation: the same numbers, computed once, and never those of parameters that have changed."""

from __future__ import annotations

import copy
import io
import threading

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from hope_ssm import registry
from hope_ssm.kernels import base, cache, hope, modal

L = 40


def build(name, **options):
    torch.manual_seed(0)
    return registry.get(name)(d_model=3, d_state=8, lr={"dt": 0.01}, **options).eval()


@pytest.fixture(params=["hope", "s4d", "s4"])
def kernel(request):
    known = {"horizon": L} if request.param == "hope" else {}  # the windows do not wait for the first sequence
    return build(request.param, **known)


@pytest.fixture
def computed(monkeypatch):
    """How often a kernel was computed."""
    times = []

    def counted(get):
        def wrapper(self, module, key, compute):
            return get(self, module, key, lambda: (times.append(key), compute())[1])

        return wrapper

    monkeypatch.setattr(cache.KernelCache, "get", counted(cache.KernelCache.get))
    return times


def fresh(kernel, **options):
    """The kernel's samples by a copy that keeps nothing."""
    with torch.no_grad():
        return copy.deepcopy(kernel).train()(L=L, **options)[0]


def first(kernel):
    """The name and tensor of one trained parameter."""
    return next(iter(kernel.named_parameters()))


def by_state_dict(kernel):
    kernel.load_state_dict({name: value + 0.1 for name, value in kernel.state_dict().items()})


def by_data(kernel):
    first(kernel)[1].data.add_(0.1)


def by_new_data(kernel):
    parameter = first(kernel)[1]
    parameter.data = parameter.data + 0.1


def by_in_place(kernel):
    with torch.no_grad():
        first(kernel)[1].view(-1)[-1].mul_(1.5)


def by_dtype(kernel):
    kernel.double()


def by_parameter(kernel):
    name, parameter = first(kernel)
    setattr(kernel, name, torch.nn.Parameter(parameter.detach() * 1.1))


def by_plain_attribute(kernel):
    """As libraries for learned optimizers put tensors with a history in a parameter's place."""
    name, parameter = first(kernel)
    delattr(kernel, name)
    setattr(kernel, name, parameter.detach() * 1.1)


def by_another_plain_attribute(kernel):
    by_plain_attribute(kernel)
    kernel(L=L)
    setattr(
        kernel, name := next(k for k, v in vars(kernel).items() if isinstance(v, torch.Tensor)), vars(kernel)[name] * 2
    )


def by_setting(kernel):
    kernel.dt_transform = "exp"


def by_swapped_storage(kernel):
    """As a moving average puts its weights in place of the model's."""
    for parameter in kernel.parameters():
        parameter.data, _ = parameter.data * 0.9, parameter.data


CHANGES = [
    by_state_dict, by_data, by_new_data, by_in_place, by_dtype, by_parameter, by_plain_attribute,
    by_another_plain_attribute, by_setting, by_swapped_storage,
]  # fmt: skip


def test_it_is_computed_once(kernel, computed):
    with torch.no_grad():
        results = [kernel(L=L)[0] for _ in range(4)]
    assert len(computed) == 1
    assert all(torch.equal(result, fresh(kernel)) for result in results)
    results[1].zero_()  # whoever changes what was returned changes nothing else
    with torch.inference_mode():
        assert torch.equal(kernel(L=L)[0], results[0])
    with torch.no_grad():
        assert torch.equal(kernel(L=L)[0], results[0])


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(kernel, change):
    with torch.no_grad():
        before = kernel(L=L)[0]
        change(kernel)
        after = kernel(L=L)[0]
    assert not torch.equal(before, after) or before.dtype != after.dtype
    assert torch.equal(after, fresh(kernel))


def test_other_lengths_rates_and_functional_call(kernel):
    with torch.no_grad():
        kernel(L=L)
        assert torch.equal(kernel(L=L + 1)[0][..., :L], kernel(L=L + 1)[0][..., :L])
        assert kernel(L=7)[0].shape[-1] == 7
        assert torch.equal(kernel(L=L, rate=2.0)[0], fresh(kernel, rate=2.0))
        before = kernel(L=L)[0]
        other = {name: value * 1.1 for name, value in kernel.named_parameters()}
        called = torch.func.functional_call(kernel, other, kwargs={"L": L})[0]
        assert not torch.equal(called, before)
        assert torch.equal(kernel(L=L)[0], before)


def test_nothing_is_kept_with_gradients_or_in_training(kernel, computed):
    for _ in range(2):
        kernel(L=L)[0].sum().backward()
    kernel.train()
    with torch.no_grad():
        kernel(L=L)
        kernel(L=L)
    assert len(computed) == 4
    assert kernel.cache._kept is None


def test_copies_and_files_hold_no_kernel(kernel):
    size = {}
    for when in ("before", "after"):
        buffer = io.BytesIO()
        torch.save(kernel, buffer)
        size[when] = len(buffer.getvalue())
        with torch.no_grad():
            kernel(L=5000)
    assert size["after"] < size["before"] + 1000
    assert copy.deepcopy(kernel).cache._kept is None


def test_vmap_over_parameters(kernel):
    stacked = {name: torch.stack([value, value * 1.1]) for name, value in kernel.named_parameters()}
    with torch.no_grad():
        kernel(L=L)
        both = torch.func.vmap(lambda p: torch.func.functional_call(kernel, p, kwargs={"L": L})[0])(stacked)
        assert torch.allclose(both[0], kernel(L=L)[0], atol=1e-6)
        assert not torch.allclose(both[1], both[0])


def other_thread(action):
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


def test_another_thread_asks_for_another_length_meanwhile(kernel, monkeypatch):
    with torch.no_grad():
        exact = kernel(L=L)[0]
    same, asked = cache._same, []

    @torch.no_grad()
    def ask():
        kernel(L=7)

    def interrupted(*values):
        found = same(*values)
        if not asked:
            asked.append(True)
            other_thread(ask)
        return found

    monkeypatch.setattr(cache, "_same", interrupted)
    with torch.no_grad():
        assert torch.equal(kernel(L=L)[0], exact)
    assert asked


def test_another_thread_trains_while_the_kernel_is_computed(kernel):
    def interrupted():
        return fresh(kernel), other_thread(lambda: by_state_dict(kernel))

    kept = cache.KernelCache()
    with torch.no_grad():
        kept.get(kernel, "key", lambda: interrupted()[0])
        assert torch.equal(kept.get(kernel, "key", lambda: fresh(kernel)), fresh(kernel))


@pytest.mark.parametrize("prepared", [True, False])
def test_forward_mode_keeps_its_tangent_and_leaves_none_behind(kernel, prepared):
    kernel = kernel.double()
    point = {name: value.detach() for name, value in kernel.named_parameters()}
    tangent = {name: torch.randn_like(value) for name, value in point.items()}

    def samples(parameters):
        return torch.func.functional_call(kernel, parameters, kwargs={"L": L})[0]

    h = 1e-6
    up, down = (samples({name: point[name] + sign * h * tangent[name] for name in point}) for sign in (1, -1))
    exact = (up - down) / (2 * h)
    with torch.no_grad():
        if prepared:
            kernel(L=L)
        value, found = torch.func.jvp(samples, (point,), (tangent,))
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6 * exact.abs().max().item())
        assert torch.equal(kernel(L=L)[0], value)
        with forward_ad.dual_level():
            dual = {name: forward_ad.make_dual(point[name], tangent[name]) for name in point}
            found = forward_ad.unpack_dual(samples(dual)).tangent
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6 * exact.abs().max().item())
        assert forward_ad.unpack_dual(kernel(L=L)[0]).tangent is None
        basis = torch.func.vmap(lambda t: torch.func.jvp(samples, (point,), (t,))[1])(
            {name: torch.stack([value, 2 * value]) for name, value in tangent.items()}
        )
        torch.testing.assert_close(basis, torch.stack([exact, 2 * exact]), rtol=1e-6, atol=1e-6)


def test_recorded_operations_are_all_there(kernel):
    """Whoever counts or records operations in evaluation sees the kernel's, whatever was kept."""
    with torch.no_grad():
        kernel(L=L)
        with FlopCounterMode(display=False) as counter:
            kernel(L=L)
    assert counter.get_total_flops() > 0


@pytest.mark.parametrize("name", ["hope", "s4d"])
def test_too_little_memory_is_one_sentence_with_the_size(name, monkeypatch):
    def short(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(hope, "sample_kernel", short)
    monkeypatch.setattr(modal.ModalKernel, "_samples", short)
    with pytest.raises(MemoryError, match=rf"the {name} kernel of shape \(1, 3, 1000000000\) .* is 12.0 GB"):
        build(name)(L=10**9)
    assert base.KernelCache is cache.KernelCache
