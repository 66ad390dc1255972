"""A disk that is full, and a clock that jumps."""

import asyncio

import pytest

from uq_llm_integrations.testing import full_disk, jumping_clock


def test_a_disk_is_full_after_so_many_bytes(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "old").write_text("old")
    with full_disk(folder, after=4):
        (other / "file").write_text("any length")
        (folder / "first").write_text("1234")
        with pytest.raises(OSError, match="No space left"), open(folder / "more", "w") as file:
            file.write("5")
        assert (folder / "old").read_text() == "old"
    (folder / "more").write_text("there is space again")


async def test_a_clock_jumps_over_a_deadline():
    with jumping_clock(asyncio.get_running_loop()) as jump, pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            jump(3601.0)
            await asyncio.Event().wait()
