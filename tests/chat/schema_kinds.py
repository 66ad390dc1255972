"""Classes of pydantic, one for each kind of field, with JSON of right values and of wrong ones.

Wrong ones are those that the grammar itself has to refuse; pydantic refuses more.
"""

# ruff: noqa: E501, N817, UP007, UP045

import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import pathlib
import re
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    Optional,
    TypeVar,
    Union,
)

import pydantic.dataclasses as pdc
from pydantic import (
    UUID4,
    AfterValidator,
    AliasChoices,
    AliasPath,
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    Base64Str,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    FilePath,
    FiniteFloat,
    HttpUrl,
    IPvAnyAddress,
    Json,
    JsonValue,
    NaiveDatetime,
    NonNegativeFloat,
    PastDate,
    PositiveInt,
    PostgresDsn,
    RootModel,
    SecretBytes,
    SecretStr,
    StrictInt,
    condecimal,
    confloat,
    conint,
    conlist,
    conset,
    constr,
    create_model,
)
from typing_extensions import TypeAliasType
from typing_extensions import TypedDict as TD

T = TypeVar("T")


class Color(enum.Enum):
    red = "red"
    blue = "blue"


class Num(enum.IntEnum):
    one = 1
    two = 2


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    bark: str


class Node(BaseModel):
    """A tree."""

    name: str
    children: list["Node"] = []


class Linked(BaseModel):
    value: int
    next: Optional["Linked"] = None


class A(BaseModel):
    b: Optional["B"] = None


class B(BaseModel):
    a: A | None = None


A.model_rebuild()


class Box(BaseModel, Generic[T]):
    item: T


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@pdc.dataclass
class PPoint:
    x: int
    y: int = 0


class TDict(TD):
    name: str
    age: NotRequired[int]


class NT(NamedTuple):
    x: int
    y: str


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    when: dt.date
    ids: tuple[int, str]
    c: Color


class Forbid(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class Allow(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Aliased(BaseModel):
    a: int = Field(alias="theNumber")


class VAlias(BaseModel):
    a: int = Field(validation_alias=AliasChoices("first", "second"))


class PathAlias(BaseModel):
    a: int = Field(validation_alias=AliasPath("data", 0))


class Base1(BaseModel):
    a: int


class Child1(Base1):
    b: str


class Roots(RootModel[list[int]]):
    pass


class RootU(RootModel[Union[Cat, Dog]]):
    pass


class RootD(RootModel[dict[str, int]]):
    pass


class RootS(RootModel[str]):
    pass


class RootI(RootModel[int]):
    pass


Json_ = TypeAliasType("Json_", "dict[str, Json_] | list[Json_] | str | int | None")


def f(kind, *default, **constraints):
    """A class with one field, `v`."""
    field = Field(*default, **constraints) if default or constraints else ...
    return create_model("M", v=(kind, field))


def V(*texts):  # noqa: N802
    return [f'{{"v": {text}}}' for text in texts]


# fmt: off
KINDS = {
    "str": (f(str), V('"a"', '"é\\n\\u00e9"'), V("1")),
    "int": (f(int), V("1", "-3", "0"), V('"a"', "1.5")),
    "float": (f(float), V("1.5", "-0.25", "3", "1e10"), V('"a"')),
    "bool": (f(bool), V("true"), V("2")),
    "none": (f(None), V("null"), V("1")),
    "optional": (f(Optional[int]), V("null", "1"), V('"a"')),
    "default": (f(int, 3), ['{}', '{"v": 1}'], V('"a"')),
    "any": (f(Any), V("1", '"a"', '{"a": [1]}'), []),
    "bytes": (f(bytes), V('"abc"'), V("1")),
    "min_length": (f(str, min_length=2), V('"ab"'), V('"a"')),
    "max_length": (f(str, max_length=3), V('"abc"'), V('"abcd"')),
    "pattern": (f(str, pattern=r"^[A-Z]{2}\d+$"), V('"AB12"'), V('"ab"')),
    "pattern_length": (f(str, pattern=r"^[a-z]+$", min_length=2, max_length=4), V('"abc"'), V('"A"')),
    "lookahead": (f(str, pattern=r"^\w+$"), V('"abc_1"'), V('"a b"')),
    "constr": (f(constr(min_length=1, max_length=5, to_upper=True)), V('"abc"'), V('""')),
    "strip": (f(constr(strip_whitespace=True)), V('" a "'), V("1")),
    "gt": (f(int, gt=3), V("4", "100"), V("3")),
    "ge_le": (f(int, ge=1, le=10), V("1", "10"), V("0", "11")),
    "lt": (f(int, lt=0), V("-1", "-55"), V("0")),
    "float_gt": (f(float, gt=0), V("0.5", "3", "1234.5", "0.0001"), V("0", "-1")),
    "float_ge_le": (f(float, ge=0, le=1), V("0", "1", "0.5", "1.0"), V("1.5")),
    "float_gt_lt": (f(float, gt=-1.5, lt=2.25), V("0", "-1.25", "2.2"), V("3")),
    "multiple_of": (f(int, multiple_of=5), V("10"), V("3")),
    "float_multiple_of": (f(float, multiple_of=0.5), V("1.5"), V("1.3")),
    "decimal": (f(decimal.Decimal), V("1.5", '"1.5"', "3", '"-12.75"', '"0"'), V('"abc"', "true")),
    "decimal_gt": (f(decimal.Decimal, gt=0), V("1.5", '"1.5"'), V("-1")),
    "condecimal": (f(condecimal(max_digits=5, decimal_places=2, ge=0)), V("12.50", '"12.50"'), V('"x"')),
    "date": (f(dt.date), V('"2024-02-29"'), V('"x"')),
    "datetime": (f(dt.datetime), V('"2024-02-29T12:00:00Z"', '"2024-02-29T12:00:00+02:00"', '"2024-02-29T12:00:00"', '"2024-02-29T12:00:00.123456"'), V('"x"')),
    "time": (f(dt.time), V('"12:00:00"', '"12:00:00Z"', '"12:00:00.5"'), V('"x"')),
    "timedelta": (f(dt.timedelta), V('"P1DT2H"', '"PT5M"', '"PT0S"'), V('"x"')),
    "pastdate": (f(PastDate), V('"2001-01-01"'), V('"x"')),
    "aware": (f(AwareDatetime), V('"2024-02-29T12:00:00Z"'), V('"x"')),
    "uuid": (f(uuid.UUID), V('"12345678-1234-5678-1234-567812345678"'), V('"x"')),
    "uuid4": (f(UUID4), V('"f47ac10b-58cc-4372-a567-0e02b2c3d479"'), V('"x"')),
    "literal": (f(Literal["a", "b"]), V('"a"'), V('"c"')),
    "literal_mixed": (f(Literal["a", 1, True, None]), V('"a"', "1", "true", "null"), V('"c"')),
    "enum": (f(Color), V('"red"'), V('"green"')),
    "intenum": (f(Num), V("1"), V("3")),
    "union": (f(Union[int, str]), V("1", '"a"'), V("[1]")),
    "union_models": (f(Union[Cat, Dog]), V('{"kind": "dog", "bark": "x"}'), V('{"kind": "cow"}')),
    "discriminated": (f(Annotated[Union[Cat, Dog], Field(discriminator="kind")]), V('{"kind": "cat", "lives": 9}'), V('{"kind": "cow"}')),
    "list": (f(list[int]), V("[1, 2]", "[]"), V('["a"]')),
    "conlist": (f(conlist(int, min_length=1, max_length=3)), V("[1]", "[1, 2, 3]"), V("[]", "[1,2,3,4]")),
    "set": (f(set[int]), V("[1, 2]"), V('["a"]')),
    "frozenset": (f(frozenset[str]), V('["a"]'), V("[1]")),
    "conset": (f(conset(int, min_length=1)), V("[1, 2]"), V("[]")),
    "tuple": (f(tuple[int, str]), V('[1, "a"]'), V("[1]", '[1, "a", 2]')),
    "tuple_var": (f(tuple[int, ...]), V("[1, 2, 3]", "[]"), V('["a"]')),
    "tuple_empty": (f(tuple[()]), V("[]"), V("[1]")),
    "sequence": (f(Sequence[int]), V("[1]"), V('["a"]')),
    "iterable": (f(Iterable[int]), V("[1]"), []),
    "deque": (f(deque[int]), V("[1]"), V('["a"]')),
    "dict": (f(dict[str, int]), V('{"a": 1}', "{}"), V('{"a": "b"}')),
    "dict_plain": (f(dict), V('{"a": 1}'), V("1")),
    "dict_model": (f(dict[str, Cat]), V('{"a": {"kind": "cat", "lives": 1}}'), V('{"a": 1}')),
    "dict_int": (f(dict[int, str]), V('{"1": "a"}'), V("1")),
    "dict_enum": (f(dict[Color, int]), V('{"red": 1}'), V('{"green": 1}')),
    "dict_literal": (f(dict[Literal["x", "y"], int]), V('{"x": 1}'), V('{"z": 1}')),
    "dict_constr": (f(dict[constr(pattern=r"^[a-z]+$"), int]), V('{"ab": 1}'), V('{"AB": 1}')),
    "dict_length": (f(dict[constr(min_length=2), int]), V('{"ab": 1}'), V('{"a": 1}')),
    "dict_date": (f(dict[dt.date, int]), V('{"2024-01-01": 1}'), V('{"x": 1}')),
    "dict_uuid": (f(dict[uuid.UUID, int]), V('{"12345678-1234-5678-1234-567812345678": 1}'), V('{"x": 1}')),
    "dict_bounded": (f(Annotated[dict[str, int], Field(min_length=1, max_length=2)]), V('{"a": 1}'), V("{}")),
    "nested": (f(Cat), V('{"kind": "cat", "lives": 1}'), V("{}")),
    "list_model": (f(list[Cat]), V('[{"kind": "cat", "lives": 1}]'), V("[{}]")),
    "recursive": (Node, ['{"name": "a", "children": [{"name": "b", "children": [{"name": "c", "children": [{"name": "d"}]}]}]}', '{"name": "a"}'], ['{"name": "a", "children": [{"name": 1}]}', '{"name": "a", "children": [{"name": "b", "children": [{"x": 1}]}]}']),
    "linked": (Linked, ['{"value": 1, "next": {"value": 2, "next": null}}'], ['{"value": 1, "next": {"value": "a"}}', '{"value": 1, "next": {"value": 1, "next": {}}}']),
    "mutual": (A, ['{"b": {"a": {"b": null}}}'], ['{"b": {"a": 1}}']),
    "recursive_alias": (f(Json_), V('{"a": [1, "b", null]}'), V("1.5")),
    "dict_recursive": (f(dict[str, Node]), V('{"a": {"name": "x", "children": [{"name": "y"}]}}'), V('{"a": {"name": "x", "children": [{}]}}')),
    "generic": (Box[int], ['{"item": 1}'], ['{"item": "a"}']),
    "generic_model": (Box[Cat], ['{"item": {"kind": "cat", "lives": 1}}'], ['{"item": 1}']),
    "generic_unset": (Box, ['{"item": 1}'], []),
    "dataclass": (f(Point), V('{"x": 1, "y": 2}', '{"x": 1}'), V('{"x": "a"}')),
    "pydantic_dataclass": (f(PPoint), V('{"x": 1}'), V('{"x": "a"}')),
    "typeddict": (f(TDict), V('{"name": "a"}', '{"name": "a", "age": 1}'), V("{}")),
    "namedtuple": (f(NT), V('[1, "a"]'), V("[1]")),
    "strict": (Strict, ['{"when": "2024-01-01", "ids": [1, "a"], "c": "red"}'], ['{"when": 1, "ids": [1, "a"], "c": "red"}']),
    "forbid": (Forbid, ['{"a": 1}'], ['{"a": 1, "b": 2}']),
    "allow": (Allow, ['{"a": 1}', '{"a": 1, "b": 2}'], ['{"b": 1}']),
    "alias": (Aliased, ['{"theNumber": 1}'], ['{"a": 1}']),
    "alias_choices": (VAlias, ['{"first": 1}'], ['{"a": 1}']),
    "inherited": (Child1, ['{"a": 1, "b": "x"}'], ['{"a": 1}']),
    "root_list": (Roots, ["[1, 2]"], ['{"a": 1}']),
    "root_union": (RootU, ['{"kind": "cat", "lives": 1}'], ["1"]),
    "root_dict": (RootD, ['{"a": 1}'], ["1"]),
    "root_str": (RootS, ['"a"'], ["1"]),
    "root_int": (RootI, ["12"], ['"a"']),
    "url": (f(AnyUrl), V('"https://example.org/a?b=c"'), V("1")),
    "httpurl": (f(HttpUrl), V('"https://example.org/"'), V("1")),
    "dsn": (f(PostgresDsn), V('"postgres://u:p@localhost:5432/db"'), V("1")),
    "ipv4": (f(ipaddress.IPv4Address), V('"127.0.0.1"'), V('"x"')),
    "ipv6": (f(ipaddress.IPv6Address), V('"::1"'), V('"x"')),
    "ipany": (f(IPvAnyAddress), V('"127.0.0.1"'), V("1")),
    "ipv4network": (f(ipaddress.IPv4Network), V('"10.0.0.0/8"'), V("1")),
    "path": (f(pathlib.Path), V('"/a/b"'), V("1")),
    "filepath": (f(FilePath), V('"/etc/hosts"'), V("1")),
    "re_pattern": (f(re.Pattern), V('"a+"'), V("1")),
    "json": (f(Json), V('"[1]"'), V("1")),
    "json_int": (f(Json[list[int]]), V('"[1]"'), V("1")),
    "secret": (f(SecretStr), V('"a"'), V("1")),
    "secretbytes": (f(SecretBytes), V('"a"'), V("1")),
    "base64": (f(Base64Str), V('"YQ=="'), V("1")),
    "base64bytes": (f(Base64Bytes), V('"YQ=="'), V("1")),
    "bytesize": (f(ByteSize), V('"1KB"', "1024"), V("true")),
    "strictint": (f(StrictInt), V("1"), V('"1"')),
    "strictfloat": (f(FiniteFloat), V("1.5"), V('"x"')),
    "positive": (f(PositiveInt), V("1"), V("0")),
    "nonneg": (f(NonNegativeFloat), V("0", "0.5"), V("-1")),
    "complex": (f(complex), V('"1+2j"'), V("true")),
    "annotated": (f(Annotated[int, Field(gt=0)]), V("1"), V("0")),
    "before_validator": (f(Annotated[int, BeforeValidator(lambda v: v)]), V("1"), V('"a"')),
    "after_validator": (f(Annotated[str, AfterValidator(lambda v: v.upper())]), V('"a"'), V("1")),
    "optional_model": (f(Optional[Cat], None), ['{}', '{"v": null}', '{"v": {"kind": "cat", "lives": 1}}'], V("1")),
    "optional_constr": (f(Optional[Annotated[str, Field(min_length=2)]]), V("null", '"ab"'), V('"a"')),
    "list_optional": (f(list[Optional[int]]), V("[1, null]"), V('["a"]')),
    "nested_list": (f(list[list[int]]), V("[[1], [2, 3]]"), V("[1]")),
    "deep": (f(dict[str, list[dict[str, Optional[Union[int, list[Cat]]]]]]), V('{"a": [{"b": 1, "c": null, "d": [{"kind": "cat", "lives": 1}]}]}'), V('{"a": 1}')),
    "described": (f(int, description="é a \"number\""), V("1"), V('"a"')),
    "title": (create_model("Titled", title=(str, ...), description=(str, ...), type=(str, ...), required=(int, ...)), ['{"title": "a", "description": "b", "type": "c", "required": 1}'], ['{"title": 1}']),
    "defs": (create_model("Defs", items=(list[str], ...), properties=(dict[str, int], ...), enum=(str, ...)), ['{"items": ["a"], "properties": {"a": 1}, "enum": "x"}'], ['{"items": 1}']),
    "reference": (create_model("Ref", format=(str, ...), pattern=(str, ...), minLength=(int, ...)), ['{"format": "a", "pattern": "b", "minLength": 2}'], []),
    "empty": (create_model("Empty"), ["{}"], ["1"]),
    "nonascii": (create_model("Straße", größe=(int, ...)), ['{"größe": 1}'], ['{"größe": "a"}']),
    "literal_unicode": (f(Literal["é", "日本"]), V('"é"', '"日本"'), V('"x"')),
    "json_value": (f(JsonValue), V('{"a": [1, "b", null, true, 1.5]}'), []),
    "const_bool": (f(Literal[True]), V("true"), V("false")),
    "enum_int_str": (f(enum.Enum("E", {"a": 1, "b": "x"})), V("1", '"x"'), V("2")),
    "conint": (f(conint(gt=0, lt=100, multiple_of=3)), V("3", "99"), V("4")),
    "confloat": (f(confloat(ge=0.0, le=100.0)), V("50.5"), V("101")),
    "naive": (f(NaiveDatetime), V('"2024-02-29T12:00:00"'), V('"x"')),
}
