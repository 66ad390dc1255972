"""Random replies: tags, braces, JSON whole and broken, and text, cut into pieces anywhere."""

from itertools import pairwise

from hypothesis import strategies as st

from uq_llm_integrations.chat.reply import Reply

TAGS = (
    "<tool_call>", "</tool_call>", "<think>", "</think>", "<tool_calls>", "</tool_calls>",
    "[TOOL_CALLS]", "[THINK]", "[/THINK]", "<|python_tag|>", "<|tool_call|>", "<function_call>",
    "<function=add>", "</function>", "<parameter=a>", "</parameter>", "functools", "```json\n",
    "```", '<invoke name="add">', "</invoke>", "<arg_key>a</arg_key>", "<arg_value>1</arg_value>",
    "<minimax:tool_call>", "</minimax:tool_call>", "<|action_start|><|plugin|>", "<|action_end|>",
    "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>", "<|tool_calls_section_begin|>", "<|tool_call_begin|>functions.add:0",
    "<|tool_call_argument_begin|>", "<|tool_call_end|>", "<|tool_call_start|>", "<|tool_call>",
    "call:add{a:1}", "<tool_call|>", "<response>", "</response>", "<dots_function_call>",
    "<seed:tool_call>", "<longcat_tool_call>", "<start_function_call>", "<end_function_call>",
)  # fmt: skip  # a list of names
"""What models write around calls and reasoning."""

_JSON = (
    '{"name": "add", "arguments": {"a": 1, "b": 2}}', '{"name": "add", "arguments": ',
    '{"name": "add"', '{"a": 1, "b": 2}', '{"path": "reports/2024', '"add"', ", ", ": ",
    "{", "}", "[", "]", '"', "\\", "1", "null", "[1]", "{}", "[add(a=1, b=2)]", "add(a=1)",
)  # fmt: skip  # a list of names
_TEXT = (" ", "\n", "Hi", "So: ", "é😀", "<", "<tool", "</", "a < b", "\t\n ")

PIECES = st.lists(
    st.sampled_from(TAGS) | st.sampled_from(_JSON) | st.sampled_from(_TEXT), max_size=9
)
HERMES = st.lists(
    st.sampled_from(TAGS[:4] * 3 + _JSON * 2 + _TEXT * 2), max_size=14
)  # fmt: skip  # a list of names
CUTS = st.lists(st.integers(0, 200), max_size=8)


def cut_at(text: str, cuts: list[int]) -> list[str]:
    """The text in pieces, some of which may be empty."""
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


def of_reply(reply: Reply):
    """What is the same in a stream: all but the ids."""
    calls = [(one.name, one.arguments) for one in reply.tool_calls]
    return reply.content, reply.reasoning or "", calls


def of_stream(reader, pieces: list[str]):
    """What a reader says piece by piece."""
    last = len(pieces) - 1
    parts = [reader.part(one, (), is_last=i == last) for i, one in enumerate(pieces)]
    calls = [(one.name, one.arguments) for part in parts for one in part.calls]
    content = "".join(part.content for part in parts)
    return content, "".join(part.reasoning for part in parts), calls
