"""What a user of the package sees first."""

import subprocess
import sys

import uq_llm_integrations


def test_public_names_all_exist():
    for name in uq_llm_integrations.__all__:
        assert getattr(uq_llm_integrations, name) is not None


def test_importing_loads_nothing_heavy():
    heavy = {"torch", "vllm", "lm_polygraph", "langchain_core", "llama_index", "numpy"}
    program = f"import sys, uq_llm_integrations; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"
