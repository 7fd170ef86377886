"""Rotary positions as a Hugging Face `config.json` spells them, in transformers 4 and in transformers 5."""

from typing import Any

from amopo_jax.models.config import RopeScaling
from amopo_jax.models.hf_fields import Fields, integer_from, number_above
from amopo_jax.types import InputError

DEFAULT_THETA = 10_000.0
"""What transformers takes where neither `rope_theta` nor `rope_parameters.rope_theta` is given."""

_SCALING_KEYS = {
  "default": (),
  "linear": ("factor",),
  "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
_COMMON_KEYS = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


def read_rope(fields: Fields, origin: str) -> tuple[float, RopeScaling | None]:
  """Reads the base of the rotary wavelengths and their stretching.

  transformers 4 writes `rope_theta` beside `rope_scaling` (`type` or `rope_type`), transformers 5 puts
  everything into `rope_parameters`. A file may hold both as long as they agree.

  Args:
    fields: a config with the keys `rope_theta`, `rope_scaling` and `rope_parameters`; each may be None.
    origin: the file, for the message.

  Returns:
    The base, and the stretching or None.

  Raises:
    InputError: a kind of scaling other than default, linear, llama3; a key that the kind does not have; a
      number out of range; spellings that contradict each other.
  """
  tables = [fields[key] for key in ("rope_parameters", "rope_scaling") if fields[key] is not None]
  scalings = {_read_table(table, origin) for table in tables}
  given = [table for table in (fields, *tables) if "rope_theta" in table and table["rope_theta"] is not None]
  thetas = {number_above(table, "rope_theta", 0.0, origin) for table in given}
  if len(thetas) > 1 or len(scalings) > 1:
    raise InputError(f"{origin}: rope_theta, rope_scaling and rope_parameters contradict each other; keep one of them")
  return thetas.pop() if thetas else DEFAULT_THETA, scalings.pop() if scalings else None


def write_rope(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
  """The inverse of `read_rope`, in the spelling of transformers 4, which transformers 5 and vLLM read too."""
  if scaling is None:
    return {"rope_theta": theta, "rope_scaling": None}
  table: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
  if scaling.kind == "llama3":
    table["low_freq_factor"] = scaling.low_freq_factor
    table["high_freq_factor"] = scaling.high_freq_factor
    table["original_max_position_embeddings"] = scaling.original_max_positions
  return {"rope_theta": theta, "rope_scaling": table}


def _read_table(table: object, origin: str) -> RopeScaling | None:
  """Reads one `rope_scaling` or `rope_parameters` table."""
  if not isinstance(table, dict):
    raise InputError(
      f"{origin}: the rotary parameters are {table!r}, not a table; take the file from the model's author"
    )
  kind = table.get("rope_type", table.get("type", "default"))
  if kind not in list(_SCALING_KEYS):
    known = ", ".join(_SCALING_KEYS)
    raise InputError(f"{origin}: rope_type {kind!r} is not supported, only {known}; use a model with one of these")
  _check_keys(table, kind, origin)
  if kind == "default":
    return None
  factor = number_above(table, "factor", 0.0, origin)
  if kind == "linear":
    return RopeScaling(kind="linear", factor=factor)
  low = number_above(table, "low_freq_factor", 0.0, origin)
  return RopeScaling(
    kind="llama3",
    factor=factor,
    low_freq_factor=low,
    high_freq_factor=number_above(table, "high_freq_factor", low, origin),
    original_max_positions=integer_from(table, "original_max_position_embeddings", 1, origin),
  )


def _check_keys(table: Fields, kind: str, origin: str) -> None:
  """Exactly the keys of the kind: a key too many would be a factor that this code ignores."""
  missing = [key for key in _SCALING_KEYS[kind] if key not in table]
  extra = [key for key in table if key not in _SCALING_KEYS[kind] + _COMMON_KEYS]
  if missing or extra:
    raise InputError(
      f"{origin}: rotary parameters of type {kind!r} lack {missing} and have unknown {extra}; "
      f"they must be exactly {list(_SCALING_KEYS[kind])}"
    )
  if "partial_rotary_factor" in table and table["partial_rotary_factor"] != 1.0:
    raise InputError(f"{origin}: partial_rotary_factor {table['partial_rotary_factor']} is not supported, only 1.0")
