"""The JSON text of the two frequent events, written field by field: that of their plain values, in half the time.

Every other event, and every value that is not a plain number or text, passes through the general way.
"""

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pbt.core.events import Decided, Decision, Event, Reported, encode_floats, to_plain
from pbt.core.population import StateRef

dump = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
"""Strict JSON of values that `encode_floats` encoded."""
_quoted = json.encoder.encode_basestring
_name = lru_cache(maxsize=1024)(_quoted)


def text_of(event: Event) -> str:
    """The JSON text of an event.

    Raises:
        TypeError, ValueError: It contains a value that is not plain.
    """
    if type(event) is Reported:
        return _reported(event)
    if type(event) is Decided and type(event.decision) is Decision:
        return _decided(event.decision)
    return dump(to_plain(event))


def _reported(event: Reported) -> str:
    head = _numbers(event.member, event.round, event.step)
    return (
        f'{{"kind":"reported","member":{head[0]},"round":{head[1]},"step":{head[2]},"scores":{_list(event.scores)},'
        f'"series":{_list(event.series)},"state":{_ref(event.state)},"digest":{_value(event.digest)},'
        f'"reported":{_mapping(event.reported)}}}'
    )


def _decided(one: Decision) -> str:
    head = _numbers(one.member, one.round, one.step)
    donor = "null" if one.donor is None else _value(one.donor)
    compared = "" if one.compared is None else f',"compared":{_value(one.compared)}'
    return (
        f'{{"kind":"decided","member":{head[0]},"round":{head[1]},"start":{_ref(one.start)},"step":{head[2]},'
        f'"hparams":{_mapping(one.hparams)},"scores":{_list(one.scores)},"series":{_list(one.series)},"donor":{donor},'
        f'"hparams_from":{_value(one.hparams_from)},"how":{_value(one.kind)},"draws":{_mapping(one.draws)},'
        f'"why":{_value(one.why)}{compared}}}'
    )


def _numbers(member: Any, round_: Any, step: Any) -> tuple[Any, Any, Any]:
    """These numbers, ready to be formatted; anything else than integers as texts."""
    if type(member) is type(round_) is type(step) is int:
        return member, round_, step
    return _value(member), _value(round_), _value(step)


def _value(value: Any) -> str:
    kind = type(value)
    if kind is int:
        return str(value)
    if kind is float and math.isfinite(value):
        return repr(value)
    if kind is str:
        return _quoted(value)
    return "null" if value is None else dump(encode_floats(value))


def _list(values: Any) -> str:
    if type(values) is not tuple:
        return _value(values)
    return "[" + ",".join(map(_value, values)) + "]" if values else "[]"


def _ref(ref: StateRef | None) -> str:
    if type(ref) is not StateRef:
        return _value(ref)
    member, round_ = ref
    return f"[{member},{round_}]" if type(member) is type(round_) is int else _value(ref)


def _mapping(values: Mapping[str, Any]) -> str:
    if not values and type(values) is dict:
        return "{}"
    if type(values) is not dict or "float" in values:  # a name that marks encoded numbers
        return _value(values)
    return "{" + ",".join([f"{_name(str(name))}:{_value(value)}" for name, value in values.items()]) + "}"
