"""LlamaIndex's agents and workflows with our class, on a backend that answers from a script."""

from llama_index.core.agent.workflow import AgentOutput, FunctionAgent, ReActAgent
from llama_index.core.workflow import Event, StartEvent, StopEvent, Workflow, step

from tests.llama_index.scripted import ADD, call, in_order, prompts, scripted
from uq_llm_integrations import ScriptedLine
from uq_llm_integrations.llama_index import UncertaintyEventHandler

REACT = 'Thought: I add.\nAction: add\nAction Input: {"a": 1, "b": 2}'


async def outputs(agent) -> list[AgentOutput]:
    """What the agent's model said, step by step."""
    running = agent.run("1 + 2?")
    events = [event async for event in running.stream_events()]
    await running
    return [event for event in events if isinstance(event, AgentOutput)]


async def test_a_function_agent_calls_a_tool_and_returns_the_scores_of_each_step(registered):
    handler = registered(UncertaintyEventHandler())
    llm = in_order(call("add", a=1, b=2), "It is 3.")
    calling, answering = await outputs(FunctionAgent(tools=[ADD], llm=llm))
    assert calling.tool_calls[0].tool_kwargs == {"a": 1, "b": 2}
    assert answering.response.content == "It is 3."
    (scored,) = calling.raw["candidates"][0]["uncertainty"]["tool_calls"]
    assert scored["id"] == calling.tool_calls[0].tool_id
    assert "scores" in answering.raw["candidates"][0]["uncertainty"]
    assert len(handler.calls) == 2
    assert not any("perplexity" in prompt for prompt in prompts(llm))


async def test_a_function_agent_that_does_not_stream_does_the_same():
    llm = in_order(call("add", a=1, b=2), "It is 3.")
    calling, answering = await outputs(FunctionAgent(tools=[ADD], llm=llm, streaming=False))
    assert "tool_calls" in calling.raw["candidates"][0]["uncertainty"]
    assert answering.response.content == "It is 3."


async def test_a_react_agent_needs_no_chat_template():
    for arguments in ({}, {"chat_template": False}):
        llm = in_order(REACT, "Thought: Done.\nAnswer: 3", **arguments)
        calling, answering = await outputs(ReActAgent(tools=[ADD], llm=llm))
        assert calling.tool_calls[0].tool_kwargs == {"a": 1, "b": 2}
        assert answering.response.content == "3"
        assert "scores" in answering.raw["candidates"][0]["uncertainty"]


class Doubtful(Event):
    """The answer was too uncertain."""


class Careful(Workflow):
    """Asks another model where the first one is in doubt."""

    @step
    async def answer(self, event: StartEvent) -> Doubtful | StopEvent:
        response = await scripted([ScriptedLine("Rome?", 0.3)]).acomplete(event.question)
        if response.additional_kwargs["uncertainty"]["scores"]["perplexity"] > 0.5:
            return Doubtful()
        return StopEvent(result=response.text)

    @step
    async def ask_another(self, event: Doubtful) -> StopEvent:
        return StopEvent(result=(await scripted().acomplete("?")).text)


async def test_a_step_of_a_workflow_decides_by_the_scores():
    assert await Careful().run(question="?") == "Paris."
