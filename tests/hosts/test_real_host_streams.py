"""The host's own layers and backbones with hope: steps, states and chunks, and the models around other geometries.

What its generate.py does on a GPU (every module's ``setup_step``, the backbone's ``default_state`` and ``step``) is
done here on the CPU. Runs when STATE_SPACES_HOME names a checkout; see conftest.py.
"""

from __future__ import annotations

import textwrap

PREAMBLE = """
    import torch
    from hope_ssm.hosts.state_spaces import register
    register()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    KERNEL = dict(mode="hope", d_state=9, dt_min=0.05, dt_max=2.0, verbose=False)

    def setup_step(model):
        for module in model.modules():
            if hasattr(module, "setup_step"):
                module.setup_step(mode="dense")

    def steps(model, x, state):
        outputs = []
        for sample in x.unbind(1):
            y, state = model.step(sample, state)
            outputs.append(y)
        return torch.stack(outputs, 1), state

    def close(a, b):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)

    def trains(model, x):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            (model(x)[0] - 1).square().mean().backward()
            optimizer.step()
        moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
        assert any("markov_parameters" in name for name in moved) and any("sampling_period" in name for name in moved)
        still = set(before) - set(moved)
        assert not [name for name in still if "kernel" in name], still
    """


def run(host, code):
    done = host.python("-c", textwrap.dedent(PREAMBLE) + textwrap.dedent(code))
    assert done.returncode == 0, done.stderr


def test_convolution_and_block(host):
    """FFTConv and S4Block: whole = steps = chunks from a state that is not zero; after training too; refusals."""
    code = """
        from src.models.sequence.kernels.fftconv import FFTConv
        from src.models.sequence.modules.s4block import S4Block
        x = torch.randn(3, 41, 6).double()
        for model in (FFTConv(6, transposed=False, channels=2, **KERNEL),
                      S4Block(6, transposed=False, channels=2, final_act="glu", **KERNEL)):
            model = model.double().eval()
            for _ in range(2):
                setup_step(model)
                start = model.default_state(3)
                assert start.shape == (3, 6, 9) and start.dtype == torch.float64 and not start.any()
                start = start + torch.randn_like(start)
                with torch.no_grad():
                    close(steps(model, x, model.default_state(3))[0], model(x)[0])
                    whole, last = model(x, state=start)
                    stepped, after = steps(model, x, start)
                    close(stepped, whole)
                    close(after, last)
                    state, parts = start, []
                    for chunk in x.split([1, 25, 15], dim=1):
                        y, state = model(chunk, state=state)
                        parts.append(y)
                    close(torch.cat(parts, 1), whole)
                    close(state, last)
                trains(model, x)
            assert model.d_state == 54 and model.state_to_tensor(start).shape == (3, 54)
            try:
                model(x, state=start[:1])  # torch would broadcast it
            except ValueError as error:
                assert "one batch size; got 3 and 1" in str(error)
            else:
                raise AssertionError("a state of another batch must be refused")
        """
    run(host, code)


def test_backbone(host):
    """SequenceModel: whole = steps; a chunk goes on from the states of the steps before it.

    (The states that its forward returns are the old ones, by the host's residual block.)
    """
    code = """
        from src.models.sequence.backbones.model import SequenceModel
        x = torch.randn(3, 41, 6).double()
        layer = dict(_name_="s4", **KERNEL)
        for prenorm in (True, False):
            model = SequenceModel(6, n_layers=2, layer=[layer], residual="R", norm="layer", prenorm=prenorm)
            model = model.double().eval()
            for _ in range(2):
                setup_step(model)
                with torch.no_grad():
                    whole, _ = model(x)
                    stepped, _ = steps(model, x, model.default_state(3))
                    close(stepped, whole)
                    _, state = steps(model, x[:, :25], model.default_state(3))
                    chunk, returned = model(x[:, 25:], state=state)
                    close(chunk, whole[:, 25:])
                    close(model(x, state=model.default_state(3))[0], whole)
                trains(model, x)
        """
    run(host, code)


def test_sashimi(host, tmp_path):
    """``model=sashimi`` trains from the command line; its steps are its forward."""
    said = host.train(
        tmp_path, "pipeline=delay", "dataset.l_seq=64", "dataset.l_lag=16", "dataset.n_train=16", "dataset.n_eval=8",
        "model=sashimi", "model.layer.mode=hope", "+train.remove_test_loader_in_eval=true",
    )  # fmt: skip
    assert "`Trainer.fit` stopped: `max_epochs=" in said
    code = """
        from src.models.sequence.backbones.sashimi import Sashimi
        x = torch.randn(2, 64, 6).double()
        layer = dict(_name_="s4", **KERNEL)
        model = Sashimi(6, 1, pool=[4, 4], expand=2, ff=2, prenorm=True, norm="layer", layer=layer).double()
        trains(model, x)
        model.eval()
        setup_step(model)
        with torch.no_grad():
            close(steps(model, x, model.default_state(2))[0], model(x)[0])
        """
    run(host, code)


def test_s4nd(host):
    """S4ND with a hope kernel along each axis is the separable convolution, and trains in a backbone."""
    code = """
        from src.models.sequence.backbones.model import SequenceModel
        from src.models.sequence.modules.s4nd import S4ND
        for l_max in (None, [5, 7], [9, 9]):
            layer = S4ND(3, d_state=9, dim=2, l_max=l_max, bidirectional=True, kernel="hope", dt_min=0.05, dt_max=2.0)
            layer = layer.double()
            u = torch.randn(2, 3, 5, 7).double()
            with torch.no_grad():
                matrices = []
                for kernel, size in zip(layer.kernel, (5, 7)):
                    forward, reverse = kernel(L=size)[0].chunk(2)
                    lag = torch.arange(size)[:, None] - torch.arange(size)
                    later = reverse[..., (-lag - 1).clamp(min=0)]
                    matrices.append(torch.where(lag >= 0, forward[..., lag.clamp(min=0)], later))
                y = torch.einsum("chij,chmn,bhjn->bhim", *matrices, u) + u * layer.D[0, :, None, None]
                close(layer(u)[0], y)
        layer = dict(_name_="s4nd", dim=2, d_state=9, kernel="hope", linear=False, dt_min=0.05, dt_max=2.0)
        model = SequenceModel(3, n_layers=2, layer=[layer], residual="R", norm="layer", transposed=True).double()
        trains(model, torch.randn(2, 5, 7, 3).double())
        """
    run(host, code)


def test_s4nd_has_the_windows_of_each_axis(host):
    """Sizes of all axes as the horizon, or none: the windows are those of the axis; sizes alone are refused."""
    code = """
        from omegaconf import OmegaConf
        from hope_ssm import registry
        from src.models.sequence.backbones.model import SequenceModel
        from src.models.sequence.modules.s4nd import S4ND
        sizes = OmegaConf.create([32, 512])  # as the host hands them on
        for name in ("hope", "hope-bands"):
            layer = dict(_name_="s4nd", dim=2, d_state=64, kernel=name, linear=False, horizon=sizes)
            for given in (dict(horizon=None), dict(horizon=[32, 512]), dict(horizon=sizes)):
                torch.manual_seed(3)
                first, second = S4ND(4, d_state=64, dim=2, l_max=sizes, kernel=name, **given).kernel
                assert (first.dt_min, first.dt_max) == (0.125, 4.0), (first.dt_min, first.dt_max)
                assert (second.dt_min, second.dt_max) == (64 / 512 / 16, 0.25)
                torch.manual_seed(3)
                torch.randn(1, 4)  # D, which S4ND draws first
                for kernel, size in ((first, 32), (second, 512)):
                    alone = registry.get(name)(d_model=4, channels=2, horizon=size, verbose=False)
                    for key, value in alone.state_dict().items():
                        assert torch.equal(value, kernel.state_dict()[key]), (name, given, key)
            options = dict(n_layers=1, residual="R", norm="layer", transposed=True)
            model = SequenceModel(4, layer=[layer | dict(l_max=[5, 7])], **options).double()
            trains(model, torch.randn(2, 5, 7, 4).double())
            try:
                S4ND(4, d_state=64, dim=2, l_max=None, kernel=name, horizon=sizes)
            except ValueError as error:
                assert str(error) == (
                    "horizon must be one whole number where l_max does not say which axis the kernel is for; "
                    "got [32, 512]. Set l_max to the sizes of the axes too, or horizon to the longest of them."
                ), error
            else:
                raise AssertionError(f"{name} took a list for a length")
        """
    run(host, code)
