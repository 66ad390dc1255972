"""What the engine's processes run first, in place of the caller's main module.

A spawned process runs the main module of its parent again. For a script without an
`if __name__ == "__main__"` guard that would start engines without end, so the engine's processes
are given this module instead, which makes their imports safe.
"""

from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds

hide_mismatched_builds()
