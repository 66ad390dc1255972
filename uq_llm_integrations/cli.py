"""The command line: ask a question or score a text, and see how sure the model is."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any

import typer
from rich.console import Console

from uq_llm_integrations.errors import EngineStartError, UncertaintyError
from uq_llm_integrations.methods.registry import check_methods
from uq_llm_integrations.records import Result

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)

Model = Annotated[str, typer.Option(help='"smollm2", a model folder or a hub name.')]
Methods = Annotated[
    list[str],
    typer.Option("--method", help="A name from `uq-llm methods`; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of colours.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the model: slower to start, faster to answer.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what the engine logs.")]

_METHODS = ["entropy", "perplexity", "maxprob", "self_certainty"]


@app.command()
def ask(
    question: str,
    model: Model = "smollm2",
    method: Methods = _METHODS,
    max_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    n: Annotated[int, typer.Option(help="How many answers to draw.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Makes drawn answers repeatable.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Do not use the chat template.")] = False,
    as_json: AsJson = False,
    compile_model: Compile = False,
    verbose: Verbose = False,
) -> None:
    """Answer a question and colour each token by its entropy."""
    from uq_llm_integrations.backends.base import MAX_N
    from uq_llm_integrations.backends.sampling_params import check_n, check_sampling
    from uq_llm_integrations.records import Request
    from uq_llm_integrations.strategies.best_of_n import Single
    from uq_llm_integrations.strategies.drive import drive

    if not question.strip():
        raise typer.BadParameter("the question is empty", param_hint="QUESTION")
    sampling = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    with _errors_in_words():
        methods = check_methods(method)
        check_n(n, MAX_N)
        check_sampling(sampling)
        with _running(model, compile_model, verbose) as backend:
            ids = backend.run(backend.encode(question, chat=not raw))
            request = Request(ids, n, sampling=sampling, text=question, chat=not raw)
            result = drive(Single(), request, backend, methods)
            _show(result, backend, as_json)


@app.command()
def score(
    prompt: Annotated[str, typer.Option(help="The text that comes before.")],
    completion: Annotated[str, typer.Option(help="The text to score.")],
    model: Model = "smollm2",
    method: Methods = _METHODS,
    raw: Annotated[bool, typer.Option("--raw", help="Do not use the chat template.")] = False,
    as_json: AsJson = False,
    compile_model: Compile = False,
    verbose: Verbose = False,
) -> None:
    """Score a given text as a continuation of a prompt (teacher forcing)."""
    from uq_llm_integrations.methods.assess import assessed
    from uq_llm_integrations.methods.availability import check_available
    from uq_llm_integrations.records import Request
    from uq_llm_integrations.strategies.drive import arun_steps
    from uq_llm_integrations.strategies.judge import judge

    with _errors_in_words():
        methods = check_methods(method)
        with _running(model, compile_model, verbose) as backend:
            check_available(methods, backend.capabilities)
            ids = backend.run(backend.encode(prompt, chat=not raw))
            continuation = backend.run(backend.encode_continuation(completion))
            started = time.perf_counter()
            candidate = backend.run(backend.score(ids, continuation))
            judged = judge([candidate], methods, time.perf_counter() - started)
            request = Request(ids, text=prompt, chat=not raw)
            result = backend.run(arun_steps(assessed(judged, request, methods), backend))
            _show(result, backend, as_json)


@app.command()
def methods(
    backend: Annotated[
        str | None, typer.Option(help="Only the column of this backend, and what is missing.")
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """List all methods: what they cost, and which backend has them."""
    from uq_llm_integrations.report.methods import chosen, lacking, markdown, table

    with _errors_in_words():
        backends = chosen(backend)
    if as_markdown:
        print(markdown(backends))
        return
    Console().print(table(backends))
    for name, why in lacking(backends).items():
        Console().print(f"{name} needs {why}", style="dim", highlight=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file."""
    from uq_llm_integrations.configuration import Configuration

    print(json.dumps(Configuration.model_json_schema(), indent=2))


def _show(result: Result, backend: Any, as_json: bool) -> None:
    from uq_llm_integrations.report.metadata import result_metadata
    from uq_llm_integrations.report.terminal import render

    texts = [backend.run(backend.token_texts(one.token_ids)) for one in result.candidates]
    if as_json:
        print(json.dumps(result_metadata(result, texts), ensure_ascii=False, indent=2))
    else:
        Console().print(render(result, texts))


@contextmanager
def _running(model: str, compile_model: bool, verbose: bool) -> Iterator[Any]:
    """Start an engine with a progress line on stderr, and end it."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO" if verbose else "ERROR")
    os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"  # stdout is for the answer
    from uq_llm_integrations.backends.vllm.backend import VLLMEngineBackend

    backend = VLLMEngineBackend(model, enforce_eager=not compile_model)
    started = time.perf_counter()
    with nullcontext(Console(stderr=True)) if verbose else _logged_stderr() as console:
        with console.status(f"Loading {model} ..."):
            backend.start()
        console.print(f"Loaded {model} in {time.perf_counter() - started:.0f} s", style="dim")
    with backend:
        yield backend


@contextmanager
def _logged_stderr() -> Iterator[Console]:
    """Send what this process and the engine's write to stderr into a log file.

    Yields a console that still writes to the terminal.
    """
    from uq_llm_integrations.checkpoints import cache_folder

    cache_folder().mkdir(parents=True, exist_ok=True)
    path = cache_folder() / "engine.log"
    terminal = os.dup(2)
    console = Console(file=os.fdopen(terminal, "w"))
    with path.open("w") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield console
    except EngineStartError:
        console.print(f"The engine's log is in {path}", style="red", highlight=False)
        raise
    finally:
        os.dup2(terminal, 2)
        console.file.close()


@contextmanager
def _errors_in_words() -> Iterator[None]:
    try:
        yield
    except UncertaintyError as error:
        Console(stderr=True).print(f"Error: {error}", style="red", highlight=False, markup=False)
        sys.exit(1)
