"""The door between configs and code: nested dicts into a `RunSpec` and back.

Field by field, in both directions and without defaults, so that a mistyped or missing key is found by name before
anything starts, and `<workdir>/run.json` can be turned back into the run.
"""

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any

from amopo_jax.run_spec import AT_LEAST, RunSpec
from amopo_jax.types import InputError


def from_dict(values: Mapping[str, Any]) -> RunSpec:
  """A run from the nested dict of a config.

  Raises:
    InputError: a key is missing, unknown, of the wrong type or too small; the message names it as `config.a.b`.
  """
  spec = _build(RunSpec, values, "config")
  flat = _flatten(dataclasses.asdict(spec), "config")
  for key, least in AT_LEAST.items():
    if not flat[key] >= least:  # NaN is not either
      raise InputError(f"{key}: {flat[key]} cannot be; the least is {least}")
  return spec


def to_dict(spec: RunSpec) -> dict[str, Any]:
  """Plain JSON-able dict, the inverse of `from_dict`."""
  return json.loads(json.dumps(dataclasses.asdict(spec)))


def difference(a: RunSpec, b: RunSpec) -> list[str]:
  """Keys in which two runs differ, as `config.a.b: 1 != 2`; the order of contexts and of sources counts too."""
  flat_a, flat_b = (_flatten(to_dict(spec), "config") for spec in (a, b))
  keys = sorted(set(flat_a) | set(flat_b))
  show = lambda flat, key: flat.get(key, "(absent)")
  values = [
    f"{key}: {show(flat_a, key)} != {show(flat_b, key)}" for key in keys if show(flat_a, key) != show(flat_b, key)
  ]
  return values + [
    f"config.data.{name}: {', '.join(x)} != {', '.join(y)} (another order)"
    for name in ("contexts", "train", "heldout")
    if (x := list(getattr(a.data, name))) != (y := list(getattr(b.data, name))) and set(x) == set(y)
  ]


def _build(kind: Any, value: Any, where: str) -> Any:
  origin = typing.get_origin(kind)
  if dataclasses.is_dataclass(kind):
    return _build_dataclass(kind, value, where)
  if origin is not None and issubclass(origin, Mapping):
    inner = typing.get_args(kind)[1]
    _expect(isinstance(value, Mapping), where, "a ConfigDict", value)
    return {str(k): _build(inner, v, f"{where}.{k}") for k, v in value.items()}
  if origin is tuple or kind is tuple:
    _expect(isinstance(value, tuple | list), where, "a tuple", value)
    inner = typing.get_args(kind)[:1]
    return tuple(_build(inner[0], v, where) if inner else _tuples(v) for v in value)
  if kind is Any:
    return value
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  _expect(isinstance(value, kind) and (kind is not int or not isinstance(value, bool)), where, kind.__name__, value)
  return value


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
  _expect(isinstance(value, Mapping), where, "a ConfigDict", value)
  hints = typing.get_type_hints(kind)
  unknown = sorted(set(value) - set(hints))
  missing = [name for name in hints if name not in value]
  if unknown:
    raise InputError(f"{where}.{unknown[0]}: unknown key; the keys are {', '.join(hints)}")
  if missing:
    raise InputError(f"{where}.{missing[0]}: missing key; configs/base.py says what it means")
  return kind(**{name: _build(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})


def _expect(holds: bool, where: str, wanted: str, value: Any) -> None:
  if not holds:
    raise InputError(f"{where}: expected {wanted}, found {value!r} ({type(value).__name__})")


def _tuples(value: Any) -> Any:
  return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _flatten(value: Any, where: str) -> dict[str, Any]:
  if not isinstance(value, Mapping):
    return {where: value}
  return {k: v for name, inner in value.items() for k, v in _flatten(inner, f"{where}.{name}").items()}
