"""The kernel for GPUs, interpreted on the CPU; `tests/gpu` has it compiled."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from uq_llm_integrations.backends import token_statistics_torch as device_sums
from uq_llm_integrations.backends.token_statistics import dense_rows

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")

INTERPRET = """
import torch, kernel
given = torch.load("given.pt")
torch.save(kernel.row_values(given["logits"], given["tokens"], least=given["least"]), "found.pt")
"""


def interpreted(folder: Path, logits, tokens, least: float) -> torch.Tensor:
    """Return the kernel's values; its functions of CUDA's own library cannot be interpreted."""
    source = Path(device_sums.__file__).with_name("token_statistics_triton.py").read_text()
    assert "libdevice.exp(" in source
    (folder / "kernel.py").write_text(source.replace("libdevice.exp(", "tl.exp("))
    torch.save({"logits": logits, "tokens": tokens, "least": least}, folder / "given.pt")
    environment = {"TRITON_INTERPRET": "1", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder)}
    subprocess.run(
        [sys.executable, "-c", INTERPRET], cwd=folder, env=environment, check=True, timeout=120
    )
    return torch.load(folder / "found.pt")


@pytest.mark.subprocess
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_columns_follow_from_the_whole_distribution(tmp_path, dtype):
    logits = torch.tensor(np.random.default_rng(1).normal(7, 3, (3, 9001))).to(dtype)
    logits[1, 100:] = -torch.inf
    tokens = torch.tensor([3, 99, 9000])
    tokens[2] = logits[2].argmin()
    found = interpreted(tmp_path, logits, tokens, -1e4)
    wide = logits.double().log_softmax(-1)
    own = wide[range(3), tokens]
    ranks = (logits >= logits[range(3), tokens][:, None]).sum(-1)
    np.testing.assert_allclose(found[:, :6], dense_rows(wide.numpy()), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[:, 6], own, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[:, 7], logits.double().logsumexp(-1), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found[:, 8], tokens)
    np.testing.assert_array_equal(found[:, 9], found[:, 6])
    np.testing.assert_array_equal(found[:, 10], ranks)


@pytest.mark.subprocess
def test_logits_that_are_no_numbers_show(tmp_path):
    logits = torch.zeros(1, 700)
    logits[0, 5] = torch.nan
    found = interpreted(tmp_path, logits, None, -1e4)
    assert found[0, :5].isnan().all()
    assert found[0, 7].isnan()


def test_where_it_cannot_be_compiled_there_is_none_and_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(torch, "zeros", lambda *sizes, device: torch.empty(sizes, device="meta"))
    assert device_sums._one_kernel.__wrapped__() is None
    assert "Triton compiles nothing here" in caplog.text
