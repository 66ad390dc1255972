"""The embedded vLLM engine, and what runs inside its worker."""

from uq_llm_integrations.backends.vllm.log_stream import log_to_stderr

log_to_stderr()  # here, since it has to come before vLLM is imported anywhere
