import sys

import pytest

from uq_llm_integrations.backends import vision_guard


def test_transformers_no_longer_believes_in_what_is_hidden(monkeypatch):
    from transformers.utils import import_utils

    monkeypatch.setattr(vision_guard, "_is_mismatched", lambda name: True)
    for name in vision_guard.COMPANIONS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    checks = [getattr(import_utils, f"is_{name}_available") for name in vision_guard.COMPANIONS]
    for check in checks:
        check()
    assert vision_guard.hide_mismatched_builds() == list(vision_guard.COMPANIONS)
    assert not any(check.cache_info().currsize for check in checks)


@pytest.mark.parametrize(
    ("torch", "torchvision", "hidden"),
    [
        ("2.13.0+cpu", "0.28.0", True),
        ("2.13.0+cpu", "0.28.0+cpu", False),
        ("2.13.0", "0.28.0", False),
        ("2.13.0+cpu", "", False),
    ],
)
def test_only_builds_that_do_not_match_torch_are_hidden(monkeypatch, torch, torchvision, hidden):
    versions = {"torch": torch, "torchvision": torchvision}
    monkeypatch.setattr(vision_guard, "_version", lambda name: versions.get(name, ""))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    assert vision_guard.hide_mismatched_builds() == (["torchvision"] if hidden else [])
