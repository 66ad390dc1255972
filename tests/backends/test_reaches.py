"""What this package depends on in other packages without their promise, and what is said of it."""

import pytest
import vllm

from uq_llm_integrations import EngineStartError
from uq_llm_integrations.backends import reaches
from uq_llm_integrations.backends.reaches import Reach, all_reaches, check_unread_version

GONE = "vllm.v1.engine.async_llm:AsyncLLM.no_such_attribute"


@pytest.mark.parametrize("name", all_reaches())
def test_what_a_reach_depends_on_is_there(name):
    all_reaches()[name].verify()


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (GONE, "it has no no_such_attribute"),
        ("vllm.no_such_module:name", "No module named"),
        ("vllm.renderers.chat_utils:make_tool_call_id(no_such_parameter)", "it takes no no_such"),
    ],
)
def test_what_has_moved_is_named_with_the_versions(target, reason):
    moved = Reach("client_compat.a_reach", (target,), "vllm", ("0.1.0", "0.2.0"))
    with pytest.raises(EngineStartError, match=reason) as raised:
        moved.verify()
    message = str(raised.value)
    assert "client_compat.a_reach" in message and target in message
    assert "vllm 0.3" in message and "0.1.0, 0.2.0" in message


@pytest.mark.parametrize(("installed", "fails"), [("0.32.0", False), ("0.99.0", True)])
def test_only_a_version_that_was_not_read_is_checked_before_a_start(monkeypatch, installed, fails):
    monkeypatch.setattr(vllm, "__version__", installed)
    moved = {"a": Reach("a", (GONE,), "vllm", reaches.VLLM_READ_IN)}
    monkeypatch.setattr(reaches, "all_reaches", lambda: moved)
    if not fails:
        check_unread_version()
        return
    with pytest.raises(EngineStartError, match=r"vllm 0\.99\.0 is not as a needs it"):
        check_unread_version()


@pytest.mark.parametrize(
    ("installed", "read_in", "is_read"),
    [
        ("0.32.0", ("0.32.0",), True),
        ("0.32.0.post1", ("0.32.0",), True),
        ("0.32.1", ("0.32.0", "0.33.0"), False),
        ("0.32.7", ("0.32",), True),
    ],
)
def test_a_version_is_read_up_to_its_post_releases(monkeypatch, installed, read_in, is_read):
    monkeypatch.setattr(vllm, "__version__", installed)
    assert Reach("a", (), "vllm", read_in).is_read is is_read
