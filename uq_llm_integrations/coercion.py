"""From plain data, as in a configuration file or on a command line, to method options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    with_config,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

from uq_llm_integrations.errors import ConfigurationError, described, suggestion
from uq_llm_integrations.methods.entailment import Classifier, EmbeddingSimilarity, ServedJudge
from uq_llm_integrations.methods.fitted.density import DensityFit
from uq_llm_integrations.methods.fitted.head import UncertaintyHead
from uq_llm_integrations.methods.fitted.luh import LuhHead
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.sentence_embeddings import SentenceEmbeddings
from uq_llm_integrations.records import Layer


@with_config(ConfigDict(extra="forbid"))
class ClassifierData(TypedDict):
    """A classifier of text pairs, from a folder or the hub."""

    classifier: str


@with_config(ConfigDict(extra="forbid"))
class SentenceEmbeddingsData(TypedDict):
    """A model of sentence-transformers, from a folder or the hub, or `minilm`."""

    sentence_embeddings: str


@with_config(ConfigDict(extra="forbid"))
class FittedData(TypedDict):
    """A folder that `save` has written, and the model and layer that it must belong to."""

    folder: Path
    model: str
    layer: NotRequired[int]


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
    entailment: Literal["judge"] | ClassifierData | SentenceEmbeddingsData
    similarity: Literal["judge", "embeddings"] | ClassifierData | SentenceEmbeddingsData
    density: FittedData
    head: LuhData | FittedData
    span: str
    layer: Layer


_DATA: TypeAdapter[MethodOptionsData] = TypeAdapter(MethodOptionsData)


def as_method_options(value: object) -> object:
    """Return method options from a mapping of their names; anything else as it is.

    Example:
        >>> as_method_options({"samples": 3}).samples
        3
    """
    if not isinstance(value, Mapping):
        return value
    for name in value:
        if name not in (known := MethodOptionsData.__annotations__):
            raise ConfigurationError(
                f"method_options: unknown {described(name)}{suggestion(str(name), known)}"
            )
    try:
        data: dict[str, Any] = dict(_DATA.validate_python(value))
    except ValidationError as error:
        raise ConfigurationError(f"method_options: {validation_text(error)}") from error
    for name in {"entailment", "similarity"} & data.keys():
        data[name] = _judge(data[name])
    if "density" in data:
        data["density"] = DensityFit.load(**{"layer": -1, **data["density"]})
    if "head" in data:
        data["head"] = _head(data["head"])
    return MethodOptions(**data)


class OptionsForm:
    """Marks a pydantic field that takes method options or their plain form."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(_changed)
        instance = core_schema.is_instance_schema(MethodOptions, serialization=written)
        return core_schema.no_info_before_validator_function(as_method_options, instance)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(_DATA.core_schema)


Options = Annotated[MethodOptions, OptionsForm()]


def _changed(options: MethodOptions) -> dict[str, object]:
    """Return the fields that are not the default."""
    default = MethodOptions()
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: _data(one) for name, one in values.items() if one != getattr(default, name)}


def _data(value: object) -> object:
    """Return the plain form of a judge that has one."""
    if isinstance(value, Classifier) and value == Classifier(value.model):
        return {"classifier": value.model}
    if isinstance(value, SentenceEmbeddings) and value == SentenceEmbeddings(value.model):
        return {"sentence_embeddings": value.model}
    return "embeddings" if value == EmbeddingSimilarity() else value


def _judge(choice: Any) -> Classifier | EmbeddingSimilarity | SentenceEmbeddings | ServedJudge:
    if isinstance(choice, Mapping) and "classifier" in choice:
        return Classifier(choice["classifier"])
    if isinstance(choice, Mapping):
        return SentenceEmbeddings(choice["sentence_embeddings"])
    return EmbeddingSimilarity() if choice == "embeddings" else ServedJudge()


def _head(data: Mapping[str, Any]) -> UncertaintyHead | LuhHead:
    if "luh" in data:
        return LuhHead.from_pretrained(data["luh"], data["model"])
    return UncertaintyHead.load(**{"layer": -1, **data})


def validation_text(error: ValidationError) -> str:
    """Return what is wrong where, in one line."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors()
    )
