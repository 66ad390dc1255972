"""Deliberate breaks of the package, and the tests of which at least one has to notice each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Break:
    """What is changed in a file of the package, and which tests are run on it."""

    name: str
    file: str
    old: str
    new: str
    tests: str


BREAKS = [
    Break(
        "take another number of rows than of tokens",
        "backends/row_checks.py",
        "if np.shape(trace.logprob) != (count,):",
        "if np.ndim(trace.logprob) != 1:",
        "tests/backends/test_row_checks.py",
    ),
    Break(
        "let NaN through the limits of rows",
        "backends/row_checks.py",
        "(holds := (values >= low) & (values <= high)).all()",
        "(holds := ~((values < low) | (values > high))).all()",
        "tests/backends/test_row_checks.py",
    ),
    Break(
        "make a sum that cannot be true an entropy of 0",
        "backends/token_statistics.py",
        "np.where((values < 0) & (values >= -most), 0.0, values)",
        "np.maximum(values, 0.0)",
        "tests/backends/server/test_http_errors.py",
    ),
    Break(
        "take an answer to another prompt",
        "backends/row_checks.py",
        "if any(one.prompt_ids != prompt for one in candidates):",
        "if not prompt:",
        "tests/backends/test_metering.py",
    ),
    Break(
        "take fewer candidates than were requested",
        "backends/row_checks.py",
        "if len(candidates) != number:",
        "if len(candidates) > number:",
        "tests/backends/test_metering.py",
    ),
    Break(
        "take a stream that lost a piece",
        "backends/row_checks.py",
        "if candidate.token_ids != tuple(token_ids[: len(candidate.token_ids)]):",
        "if len(candidate.token_ids) < len(token_ids):",
        "tests/backends/test_metering.py",
    ),
    Break(
        "take a stream without an end for whole",
        "backends/metering.py",
        'raise EngineDeadError("the backend ended a stream without its last piece")',
        "return",
        "tests/backends/test_metering.py",
    ),
    Break(
        "swap the samples of one answer of a server",
        "backends/server/generation.py",
        "for one in sorted(parts, key=lambda part: part.index)",
        "for one in sorted(parts, key=lambda part: -part.index)",
        "tests/backends/server/test_server_backend.py",
    ),
    Break(
        "swap two rows of a server's answer",
        "backends/server/replies.py",
        "    _check_rows(rows, ids)\n    return rows, None",
        "    _check_rows(rows, ids)\n    return rows[::-1], None",
        "tests/backends/server/test_server_backend.py tests/backends/server/test_http_errors.py",
    ),
    Break(
        "take rows of other tokens",
        "backends/server/replies.py",
        'if column(rows, "token").tolist() != list(ids):\n        raise EngineError("they belong',
        'if not len(ids):\n        raise EngineError("they belong',
        "tests/backends/server/test_http_errors.py",
    ),
    Break(
        "join a choice that a server gives twice",
        "backends/server/replies.py",
        "if len(parts) > 1 and len({one.index for one in parts}) < len(parts):",
        "if not parts and choices:",
        "tests/backends/server/test_http_errors.py",
    ),
    Break(
        "take a sample that a server did not finish",
        "backends/server/generation.py",
        'if part.finish_reason in (None, "error"):',
        'if part.finish_reason == "error":',
        "tests/backends/server/test_server_backend.py tests/backends/server/test_failover.py",
    ),
    Break(
        "take a stream that broke for one that ended",
        "backends/server/fleet.py",
        'raise EngineDeadError(f"the stream broke: {failure.error}") from None',
        "return None",
        "tests/backends/server/test_failover.py",
    ),
    Break(
        "forget the deadline of a stream",
        "backends/server/fleet.py",
        'async with _in_time_at(ends, "the stream did not end within the deadline"):',
        'async with _in_time_at(ends + 3600, "the stream did not end within the deadline"):',
        "tests/backends/server/test_failover.py",
    ),
    Break(
        "forget that the queue is bounded",
        "backends/server/request_queue.py",
        "if self._waiting >= _WAITING * self._most:",
        "if self._waiting < 0:",
        "tests/backends/server/test_failover.py",
    ),
    Break(
        "keep a place of the queue of a stream that was left",
        "backends/server/fleet.py",
        "            self._queue.give_back()\n            if stream is not None:",
        "            if stream is not None:",
        "tests/backends/server/test_failover.py::test_a_stream_that_is_left_gives_its_place_back",
    ),
    Break(
        "forget to close a stream at the end of its block",
        "backends/streams.py",
        "        await close_stream(self._stream)\n\n\ndef unknown",
        "        return\n\n\ndef unknown",
        "tests/backends/test_streams.py",
    ),
    Break(
        "follow redirections with the key",
        "backends/server/wire.py",
        "follow_redirects=False,",
        "follow_redirects=True,",
        "tests/backends/server/test_encryption.py",
    ),
    Break(
        "start an engine again as often as it dies",
        "backends/vllm/pool.py",
        "or engine.restarts < restarts:",
        "or engine.restarts <= 10**9:",
        "tests/backends/vllm/test_pool.py",
    ),
    Break(
        "tell nobody that the engine has died",
        "backends/vllm/life_check.py",
        "            one.interruption.interrupt(failure)",
        "            assert failure",
        "tests/backends/vllm/test_life_check.py",
    ),
    Break(
        "raise one error for all who wait",
        "backends/vllm/process.py",
        "raise type(error)(*error.args) from error\n    except UncertaintyError",
        "raise\n    except UncertaintyError",
        "tests/backends/vllm/test_process.py tests/backends/vllm/test_pool.py",
    ),
    Break(
        "forget the timeout of a call",
        "model.py",
        "async with asyncio.timeout(self.settings.timeout) as scope:",
        "async with asyncio.timeout(None) as scope:",
        "tests/test_model.py tests/langchain/test_chat.py",
    ),
    Break(
        "let a closed backend's calls go on",
        "backends/interruption.py",
        "        for end in ends:",
        "        for end in ends[:0]:",
        "tests/test_closing.py",
    ),
    Break(
        "score an empty answer 0.0",
        "methods/scoring.py",
        "return Score(method.name, reason=trace.damage or NO_TOKENS)",
        "return Score(method.name, 0.0)",
        "tests/methods/test_scoring.py tests/backends/test_row_checks.py",
    ),
    Break(
        "score what is not finite 0.0",
        "methods/scoring.py",
        "return Score(method.name, value) if isfinite(value) else _not_finite(method, trace)",
        "return Score(method.name, value if isfinite(value) else 0.0)",
        "tests/methods/test_scoring.py tests/methods/test_degenerate.py",
    ),
    Break(
        "rank an unknown score first",
        "strategies/results.py",
        "    return 2, 0.0, candidate.token_ids",
        "    return -1, 0.0, candidate.token_ids",
        "tests/strategies/test_best_of_n.py",
    ),
    Break(
        "rank a cut answer like a whole one",
        "strategies/results.py",
        "    if not candidate.is_whole:\n        return 3, 0.0, candidate.token_ids\n",
        "",
        "tests/strategies/test_best_of_n.py tests/strategies/test_base.py",
    ),
    Break(
        "take what is not known for certain",
        "strategies/conditions.py",
        "return self(scored) is not False",
        "return self(scored) is True",
        "tests/strategies/test_conditions.py tests/strategies/test_abstain.py",
    ),
    Break(
        "retry errors within retries of errors",
        "strategies/retry.py",
        "if _has_retries(self.strategy):",
        "if not self.strategy:",
        "tests/strategies/test_retry.py",
    ),
    Break(
        "retry what trying again cannot help",
        "strategies/retry.py",
        "return isinstance(error, UncertaintyError) and error.is_retryable",
        "return isinstance(error, UncertaintyError)",
        "tests/strategies/test_retry.py",
    ),
    Break(
        "swap the ends of an entropy's interval",
        "methods/bounds.py",
        "return np.maximum(concentrated - slack, 0.0), np.minimum(spread, highest) + slack",
        "return np.minimum(spread, highest) + slack, np.maximum(concentrated - slack, 0.0)",
        "tests/methods/test_bounds.py",
    ),
    Break(
        "promise a risk without the question to come",
        "calibration/conformal_risk.py",
        "(ranking.wrong_so_far + 1) / (questions + 1)",
        "ranking.wrong_so_far / questions",
        "tests/calibration/test_thresholds.py tests/calibration/test_promises.py",
    ),
    Break(
        "write over a file in place",
        "plain_data.py",
        'path.with_name(f".{path.name}.{os.getpid()}")',
        "path",
        "tests/faults/test_full_disk.py",
    ),
    Break(
        "let an uncertain answer through the gate",
        "langchain/gate.py",
        "if is_uncertain(self.uncertain_when, uncertainty, allow_unscored=self.allow_unscored):",
        "if uncertainty is None:",
        "tests/langchain/test_gate.py",
    ),
]
