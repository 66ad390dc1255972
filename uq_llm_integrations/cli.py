"""The command line: ask a question or score a text, and see how sure the model is."""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, TextIO

from uq_llm_integrations.errors import MissingDependencyError

try:
    import typer
    from rich.console import Console
    from rich.text import Text
except ImportError as error:
    raise MissingDependencyError("typer with rich", "cli") from error

from pydantic import SecretStr

from uq_llm_integrations.backends.server import launcher
from uq_llm_integrations.backends.token_texts import candidate_texts
from uq_llm_integrations.checkpoints import cache_folder
from uq_llm_integrations.config import Configuration, load_mapping
from uq_llm_integrations.errors import ConfigurationError, EngineStartError, UncertaintyError
from uq_llm_integrations.model import UncertaintyModel
from uq_llm_integrations.plain_data import load_yaml
from uq_llm_integrations.records import Result
from uq_llm_integrations.report.metadata import result_metadata
from uq_llm_integrations.report.methods import as_data, chosen, lacking, markdown, print_table
from uq_llm_integrations.report.terminal import json_text, render, shown
from uq_llm_integrations.settings import Settings, combined

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)

Model = Annotated[str | None, typer.Option(help='"smollm2", a model folder or a hub name.')]
BaseUrl = Annotated[
    list[str] | None,
    typer.Option(help="The address of a running server; may be repeated for several of them."),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        help="The servers' key; by default it is in UQ_LLM_API_KEY, where others cannot read it."
    ),
]
Config = Annotated[Path | None, typer.Option(help="A configuration file.")]
Raw = Annotated[bool, typer.Option("--raw", help="Do not use the chat template.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of colours.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the model: slower to start, faster to answer.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what the engine logs.")]
Method = Annotated[
    list[str] | None,
    typer.Option("--method", help="A name from `uq-llm methods`; may be repeated."),
]

API_KEY = "UQ_LLM_API_KEY"
"""The variable with the key of the servers."""

_DEFAULTS = {
    "methods": ["entropy", "perplexity", "maxprob", "self_certainty"],
    "temperature": 0.0,
    "max_tokens": 256,
}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of `Settings`; a value is read as YAML."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    kept = [one for one in own if one.kind is not one.VAR_KEYWORD]
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(help=f"{name} of Settings, as YAML.")],
        )
        for name in Settings.model_fields
    ]
    command.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]  # functions have it
    command.__annotations__ = {one.name: one.annotation for one in (*kept, *added)}
    return command


@app.command()
@with_settings
def ask(
    question: str,
    model: Model = None,
    config: Config = None,
    method: Method = None,
    raw: Raw = False,
    as_json: AsJson = False,
    compile_model: Compile = False,
    verbose: Verbose = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    **options: str | None,
) -> None:
    """Answer a question and colour each token by its entropy."""
    if not question.strip():
        raise typer.BadParameter("the question is empty", param_hint="QUESTION")
    with _errors_in_words(), _own_stdout() as stdout:
        _set_log_level(verbose)
        generator = _generator(model, config, compile_model, base_url, api_key)
        core = _model(generator, config, method, raw, options)
        with _running(core, verbose):
            _show(core.generate(question), core, as_json, stdout)


@app.command()
@with_settings
def score(
    prompt: Annotated[str, typer.Option(help="The text that comes before.")],
    completion: Annotated[str, typer.Option(help="The text to score.")],
    model: Model = None,
    config: Config = None,
    method: Method = None,
    raw: Raw = False,
    as_json: AsJson = False,
    compile_model: Compile = False,
    verbose: Verbose = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    **options: str | None,
) -> None:
    """Score a given text as a continuation of a prompt (teacher forcing)."""
    with _errors_in_words(), _own_stdout() as stdout:
        _set_log_level(verbose)
        generator = _generator(model, config, compile_model, base_url, api_key)
        core = _model(generator, config, method, raw, options)
        with _running(core, verbose):
            _show(core.score(prompt, completion), core, as_json, stdout)


@app.command()
def methods(
    backend: Annotated[
        str | None, typer.Option(help="Only the column of this backend, and what is missing.")
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """List all methods: what they cost, and which backend has them."""
    if as_markdown and as_json:
        raise typer.BadParameter("choose one of --markdown and --json")
    with _errors_in_words():
        backends = chosen(backend)
    if as_json:
        print(json.dumps(as_data(backends), ensure_ascii=False, indent=2))
    elif as_markdown:
        print(markdown(backends))
    else:
        print_table(Console(), backends)
        for name, why in lacking(backends).items():
            Console().print(Text(f"{name} needs {why}", "dim"), soft_wrap=True)


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def serve(
    context: typer.Context,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL [VLLM'S OWN FLAGS]", show_default=False)
    ] = None,
) -> None:
    """Run `vllm serve`, with exact uncertainty in every answer.

    MODEL is "smollm2", a model folder or a hub name; every further flag is one of `vllm serve`:
    `uq-llm serve --help=all` lists them, `--help=port` those about a word.
    """
    if not arguments or arguments in (["--help"], ["-h"]):
        print(context.get_help())
        return
    with _errors_in_words():
        launcher.serve(arguments)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file."""
    print(json.dumps(Configuration.model_json_schema(), indent=2))


def _generator(
    model: str | None,
    config: Path | None,
    compile_model: bool,
    base_url: list[str] | None,
    api_key: str | None,
) -> dict[str, object]:
    """Return what the command line says of where tokens come from."""
    if compile_model and base_url:
        raise ConfigurationError("--compile is of an engine in this program, not of a server")
    if config is None and not base_url:
        given: dict[str, object] = {"model": model or "smollm2", "enforce_eager": not compile_model}
    else:
        given = {"model": model} if model else {}
    given |= {"type": "vllm_server", "base_url": base_url} if base_url else {}
    return given | ({"api_key": SecretStr(api_key)} if api_key else {})


def _model(
    generator: dict[str, object],
    config: Path | None,
    method: list[str] | None,
    raw: bool,
    options: dict[str, str | None],
) -> UncertaintyModel:
    given = {name: _value(name, text) for name, text in options.items() if text is not None}
    given |= {"methods": method} if method else {}
    given |= {"chat_template": False} if raw else {}
    file = {**_DEFAULTS, "chat_template": True} if config is None else load_mapping(config)
    if isinstance(found := file.get("generator", {}), Mapping) and (found or generator):
        file["generator"] = _with_key({**found, **generator})
    return UncertaintyModel.from_config(combined(file, given))


def _with_key(generator: dict[str, object]) -> dict[str, object]:
    """Return a generator with the key out of the environment, where it is one of servers."""
    key = os.environ.get(API_KEY)
    if key and generator.get("type") == "vllm_server":
        return {"api_key": SecretStr(key), **generator}
    return generator


def _value(name: str, text: str) -> object:
    try:
        return load_yaml(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name} cannot be read: {error}") from error


def _show(result: Result, core: UncertaintyModel, as_json: bool, stdout: TextIO) -> None:
    backend = core.backend
    texts = [backend.run(candidate_texts(backend, one)) for one in result.candidates]
    if as_json:
        data = result_metadata(result, texts)
        print(json_text(data), file=stdout, flush=True)
    else:
        Console(file=stdout).print(render(result, texts))


def _set_log_level(verbose: bool) -> None:
    """Let vLLM log as much as was wanted; it reads this when it is imported."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO" if verbose else "ERROR")


@contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """Yield stdout, for the answer alone: what anything else writes there goes to stderr.

    The engine's processes have the same stdout, whatever logging was configured.
    """
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # it is no file
        yield sys.stdout
        return
    sys.stdout.flush()
    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    with os.fdopen(os.dup(number), "w", encoding=encoding, errors=errors) as stdout:
        os.dup2(2, number)
        try:
            yield stdout
        finally:
            sys.stdout.flush()
            stdout.flush()
            os.dup2(stdout.fileno(), number)


@contextmanager
def _running(core: UncertaintyModel, verbose: bool) -> Iterator[None]:
    """Start the engine with a progress line on stderr, and end it."""
    name, started = core.backend.capabilities.model, time.perf_counter()
    with nullcontext(Console(stderr=True)) if verbose else _logged_stderr() as console:
        with console.status(Text(f"Loading {shown(name)} ...")):
            core.backend.run(core.backend.encode("?"))  # any use starts it
        name = core.backend.capabilities.model  # servers say theirs at the first contact
        console.print(Text(f"Loaded {shown(name)} in {time.perf_counter() - started:.0f} s", "dim"))
    with core:
        yield


@contextmanager
def _logged_stderr() -> Iterator[Console]:
    """Send what this process and the engine's write to stdout and stderr into a log file.

    Yields a console that still writes to the terminal.
    """
    cache_folder().mkdir(parents=True, exist_ok=True)
    path = cache_folder() / "engine.log"
    terminal, stdout = os.dup(2), os.dup(1)
    console = Console(file=os.fdopen(terminal, "w"))
    with path.open("w") as log:
        os.dup2(log.fileno(), 2)
        os.dup2(log.fileno(), 1)
    try:
        yield console
    except EngineStartError:
        console.print(Text(f"The engine's log is in {path}", "red"))
        raise
    finally:
        os.dup2(terminal, 2)
        os.dup2(stdout, 1)
        os.close(stdout)
        console.file.close()


@contextmanager
def _errors_in_words() -> Iterator[None]:
    try:
        yield
    except UncertaintyError as error:
        said = shown(f"Error: {error}")  # a server, or a model, may have had its part in it
        Console(stderr=True).print(said, style="red", highlight=False, markup=False)
        sys.exit(1)
