"""The host's layer in one file, models/s4/s4.py, with the plug-in; and HopeBlock in the place of its S4D in example.py.

Runs when STATE_SPACES_HOME names a checkout; see conftest.py.
"""

from __future__ import annotations

import shutil
import textwrap

from host_output import DONE, groups

DELAY = ["pipeline=delay", "dataset.l_seq=64", "dataset.l_lag=16", "dataset.n_train=16", "dataset.n_eval=8"]
DELAY += ["model=s4", "+train.remove_test_loader_in_eval=true"]
EXAMPLE = ["--grayscale", "--d_model", "8", "--n_layers", "1", "--batch_size", "50", "--num_workers", "0"]


def test_it_trains_with_hope_from_the_command_line(host, tmp_path):
    said = host.train(tmp_path, *DELAY, "model/layer=standalone", "model.layer.mode=hope")
    assert DONE in said
    assert (8, 0.001) in groups(said), "Δt of 8 features in a group of its own"


def test_convolution_equals_steps_and_other_names_are_refused(host):
    code = """
        import hope_ssm.hydra_searchpath
        import torch
        from models.s4.s4 import S4Block, SSMKernelDiag, kernel_registry
        torch.manual_seed(0)
        assert kernel_registry["s4d"] is SSMKernelDiag, "the host's own entry wins"
        block = S4Block(6, mode="hope", d_state=9, dt_min=0.05, dt_max=2.0, transposed=False).double().eval()
        assert type(block.layer.kernel).__name__ == "HopeKernel"
        x = torch.randn(3, 41, 6).double()
        block.setup_step()
        state, steps = block.default_state(3), []
        with torch.no_grad():
            for sample in x.unbind(1):
                y, state = block.step(sample, state)
                steps.append(y)
            torch.testing.assert_close(torch.stack(steps, 1), block(x)[0], rtol=1e-9, atol=1e-9)
        try:
            S4Block(6, mode="hoep")
        except ValueError as error:
            assert "got 'hoep'. Did you mean 'hope'?" in str(error)
        else:
            raise AssertionError("an unknown kernel must be refused")
        """
    done = host.python("-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr


def test_the_example_with_one_line_changed(host, tmp_path, cifar):
    data, accept = cifar
    text = (host.home / "example.py").read_text()
    theirs, ours = "from models.s4.s4d import S4D\n", "from hope_ssm import HopeBlock as S4D\n"
    hundred, one = "'--epochs', default=100", "'--epochs', default=1"  # the option itself takes no whole number
    assert text.count(theirs) == text.count(hundred) == 1
    (tmp_path / "example.py").write_text(text.replace(theirs, ours).replace(hundred, one))
    shutil.copytree(data / "cifar", tmp_path / "data" / "cifar")
    done = host.python(str(tmp_path / "example.py"), *EXAMPLE, directory=tmp_path, path=(accept, host.home))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Optimizer group 1" in done.stdout, "the parameters' own options must reach its optimizer"
    assert "Batch Idx: (0/1) | Loss: " in done.stderr
