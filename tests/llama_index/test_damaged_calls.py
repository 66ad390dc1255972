"""No tool is called without the arguments that the model was about to give."""

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from tests.llama_index.scripted import ADD, call, in_order, scripted
from uq_llm_integrations import errors

MADE = call("add", a=1, b=2)
CUT = MADE.index('"b"')


async def selected(verb: str, said: str, **options):
    """What is selected from the response of each way to chat with tools."""
    llm = scripted([said], **options)
    answer = getattr(llm, f"{verb}_with_tools")([ADD], "1 + 2?")
    answer = await answer if verb.startswith("a") else answer
    if "stream" in verb:
        parts = [one async for one in answer] if verb.startswith("a") else list(answer)
        answer = parts[-1]
    return answer, lambda: llm.get_tool_calls_from_response(answer)


VERBS = pytest.mark.parametrize("verb", ["chat", "achat", "stream_chat", "astream_chat"])


@VERBS
async def test_a_call_that_was_cut_is_an_error_that_says_why(verb):
    response, select = await selected(verb, MADE, max_tokens=CUT)
    with pytest.raises(errors.IncompleteAnswerError, match="max_tokens") as caught:
        select()
    assert (caught.value.text, caught.value.finish_reason) == ('{"a": 1,', "length")
    assert response.additional_kwargs["finish_reason"] == "length"


@VERBS
async def test_the_finish_reason_says_that_calls_were_made(verb):
    response, select = await selected(verb, MADE)
    assert select()[0].tool_kwargs == {"a": 1, "b": 2}
    assert response.additional_kwargs["finish_reason"] == "tool_calls"


@VERBS
@pytest.mark.parametrize("arguments", ["[1]", '"x"', "3"])
async def test_arguments_that_are_no_object_are_an_error(verb, arguments):
    said = f'<tool_call>{{"name": "add", "arguments": {arguments}}}</tool_call>'
    _, select = await selected(verb, said)
    with pytest.raises(errors.InvalidAnswerError, match="JSON object"):
        select()


ran: list[tuple[object, ...]] = []


@pytest.fixture
def noted():
    ran.clear()
    return FunctionTool.from_defaults(lambda a=0, b=0: ran.append((a, b)), name="add")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("in_workflow", [False, True])
@pytest.mark.parametrize("size", [CUT, MADE.index('"arguments"'), MADE.index("}")])
async def test_an_agent_does_not_run_a_damaged_call(noted, streaming, in_workflow, size):
    llm = in_order(MADE, max_tokens=size)
    agent = FunctionAgent(llm=llm, tools=[noted], streaming=streaming)
    with pytest.raises(errors.IncompleteAnswerError):
        await (AgentWorkflow(agents=[agent]) if in_workflow else agent).run("1 + 2?")
    assert ran == []


ACTION = 'Thought: I add.\nAction: add\nAction Input: {"a": {"c": 1}, "b": "x}'


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("size", [len(ACTION), ACTION.index(', "b"')])
async def test_an_agent_that_reads_text_does_not_run_a_cut_action(noted, streaming, size):
    llm = in_order(ACTION + ' y"}', max_tokens=size)
    agent = ReActAgent(llm=llm, tools=[noted], streaming=streaming)
    with pytest.raises(errors.IncompleteAnswerError, match="the action is not whole"):
        await agent.run("1 + 2?")
    assert ran == []


async def test_an_agent_that_reads_text_runs_an_action_that_is_whole(noted):
    said = 'Thought: I add.\nAction: add\nAction Input: {"a": 1, "b": 2}'
    llm = in_order(said, "Thought: I know.\nAnswer: 3", max_tokens=len(said))
    agent = ReActAgent(llm=llm, tools=[noted], streaming=True)
    await agent.run("1 + 2?")
    assert ran == [(1, 2)]


class Country(BaseModel):
    """A country."""

    name: str


async def made(program, way: str):
    match way:
        case "call":
            return program()
        case "acall":
            return await program.acall()
        case "stream":
            return list(program.stream_call())[-1]
    return [one async for one in await program.astream_call()][-1]


@pytest.mark.parametrize("way", ["call", "acall", "stream", "astream"])
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_tokens": 50}, errors.IncompleteAnswerError),
        (
            {"uncertain_when": "mean_nll > 0", "on_high_uncertainty": "abstain"},
            errors.HighUncertaintyError,
        ),
    ],
)
async def test_a_program_passes_on_why_there_is_no_object(options, error, way):
    said = call("Country", name="Mali")
    program = FunctionCallingProgram.from_defaults(
        Country, "Which?", llm=scripted([said], **options)
    )
    with pytest.raises(error) as caught:
        await made(program, way)
    assert caught.value.uncertainty["scores"]
