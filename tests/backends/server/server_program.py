"""vLLM's own server, on a machine whose torchvision may be another build than its torch.

vLLM's processes import the main module again, which makes their imports safe, too.
"""

import runpy

from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds

hide_mismatched_builds(from_vllm=True)

if __name__ == "__main__":
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
