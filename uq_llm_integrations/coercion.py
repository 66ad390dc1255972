"""From plain data, as in a configuration file or on a command line, to the objects themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, PydanticOmit
from pydantic import TypeAdapter, ValidationError, with_config
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

from uq_llm_integrations.errors import ConfigurationError, suggestion
from uq_llm_integrations.methods.contrib.luh import LuhHead
from uq_llm_integrations.methods.entailment import Classifier, EmbeddingSimilarity, ServedJudge
from uq_llm_integrations.methods.fitted.density import DensityFit
from uq_llm_integrations.methods.fitted.head import UncertaintyHead
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Layer
from uq_llm_integrations.strategies import STRATEGIES
from uq_llm_integrations.strategies.base import Strategy
from uq_llm_integrations.strategies.condition_text import as_condition
from uq_llm_integrations.strategies.conditions import Condition

PlainData = Mapping[str, Any]


def as_strategy(value: object) -> object:
    """Return a strategy from its type's name, or from a mapping with its `type` and fields.

    Example:
        >>> as_strategy({"type": "best_of_n", "n": 4}).n
        4
    """
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Mapping):
        return value
    kind = value.get("type", "")
    if kind not in STRATEGIES:
        raise ConfigurationError(f"unknown strategy {kind!r}{suggestion(str(kind), STRATEGIES)}")
    given = {name: part for name, part in value.items() if name != "type"}
    if "strategy" in given:
        given["strategy"] = as_strategy(given["strategy"])
    for name in {"when", "branch_when"} & given.keys():
        given[name] = as_condition(given[name])
    known = [one.name for one in fields(STRATEGIES[kind])]
    for name in given:
        if name not in known:
            near = suggestion(name, known)
            raise ConfigurationError(f"strategy {kind}: unknown option {name!r}{near}")
    return _validated(f"strategy {kind}", _adapter(STRATEGIES[kind]), given)


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _validated(what: str, adapter: TypeAdapter[Any], value: object) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise ConfigurationError(f"{what}: {validation_text(error)}") from error


def validation_text(error: ValidationError) -> str:
    """Return what is wrong where, in one line."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors()
    )


@with_config(ConfigDict(extra="forbid"))
class ClassifierData(TypedDict):
    """A classifier of text pairs, from a folder or the hub."""

    classifier: str


@with_config(ConfigDict(extra="forbid"))
class FittedData(TypedDict, total=False):
    """A folder that `save` has written, and the model and layer that it must belong to."""

    folder: Path
    model: str
    layer: int


@with_config(ConfigDict(extra="forbid"))
class LuhData(TypedDict):
    """A head of the package `luh`, a folder or a hub name, and the model that it was made for."""

    luh: str
    model: str


@with_config(ConfigDict(extra="forbid"))
class MethodOptionsData(TypedDict, total=False):
    """The plain form of `MethodOptions`."""

    samples: int
    temperature: float
    entailment: Literal["judge"] | ClassifierData
    similarity: Literal["judge", "embeddings"] | ClassifierData
    density: FittedData
    head: LuhData | FittedData
    layer: Layer


def as_method_options(value: object) -> object:
    """Return method options from a mapping of their names.

    Example:
        >>> as_method_options({"samples": 3}).samples
        3
    """
    if not isinstance(value, Mapping):
        return value
    data = _validated("method_options", _adapter(MethodOptionsData), value)
    for name in {"entailment", "similarity"} & data.keys():
        data[name] = _judge(data[name])
    if "density" in data:
        data["density"] = DensityFit.load(**{"layer": -1, **data["density"]})
    if "head" in data:
        data["head"] = _head(data["head"])
    return MethodOptions(**data)


def _judge(choice: Any) -> Classifier | EmbeddingSimilarity | ServedJudge:
    if isinstance(choice, Mapping):
        return Classifier(choice["classifier"])
    return EmbeddingSimilarity() if choice == "embeddings" else ServedJudge()


def _head(data: PlainData) -> UncertaintyHead | LuhHead:
    if "luh" in data:
        return LuhHead.from_pretrained(data["luh"], data["model"])
    return UncertaintyHead.load(**{"layer": -1, **data})


class StrategyData:
    """Marks a pydantic field that takes a strategy or its plain form."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        instance = core_schema.is_instance_schema(Strategy)
        return core_schema.no_info_before_validator_function(as_strategy, instance)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"enum": sorted(STRATEGIES)}, *map(_strategy_schema, STRATEGIES)]}


class ConditionData:
    """Marks a pydantic field that takes a condition or its text."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        instance = core_schema.is_instance_schema(Condition)
        parsed = core_schema.no_info_before_validator_function(as_condition, instance)
        return core_schema.nullable_schema(parsed)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "examples": ["perplexity > 1.8 or entropy > 2"]}


class MethodOptionsForm:
    """Marks a pydantic field that takes method options or their plain form."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        instance = core_schema.is_instance_schema(MethodOptions)
        read = core_schema.no_info_before_validator_function(as_method_options, instance)
        return core_schema.nullable_schema(read)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return _adapter(MethodOptionsData).json_schema()


class _PlainSchema(GenerateJsonSchema):
    """Leaves out what plain data cannot hold, such as functions."""

    def handle_invalid_for_json_schema(
        self, schema: CoreSchema, error_info: str
    ) -> JsonSchemaValue:
        raise PydanticOmit


def _strategy_schema(kind: str) -> JsonSchemaValue:
    schema = _adapter(STRATEGIES[kind]).json_schema(schema_generator=_PlainSchema)
    properties = {"type": {"const": kind}, **schema.get("properties", {})}
    return {**schema, "properties": properties, "required": ["type", *schema.get("required", [])]}
