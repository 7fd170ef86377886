"""Optimizers and schedules by name, all of them optax's."""

import math
from collections.abc import Callable
from typing import Any

import jax
import optax

from amopo_jax.types import InputError

SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
  "cosine": lambda peak, steps: optax.cosine_decay_schedule(peak, max(steps, 1)),
  "linear": lambda peak, steps: optax.linear_schedule(peak, 0.0, max(steps, 1)),
  "constant": lambda peak, steps: optax.constant_schedule(peak),
}
"""What follows the warm-up: (peak, steps) -> schedule."""

OPTIMIZERS = ("adamw", "adafactor", "lion")

DEFAULTS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "mu_dtype": ""}
"""Values of `configs/base.py`, at which an optimizer's unused keys must be left."""

UNUSED = {"adamw": (), "adafactor": ("b1", "b2", "eps", "mu_dtype"), "lion": ("eps",)}
"""Keys of `DEFAULTS` that an optimizer does not use."""

MU_DTYPES = ("", "float32", "bfloat16")


def make_schedule(name: str, *, peak: float, steps: int, warmup_fraction: float) -> optax.Schedule:
  """Learning rate over steps: linear warm-up from 0, then the named decay to 0.

  Args:
    name: of SCHEDULES.
    peak: learning rate at the end of the warm-up.
    steps: length of the run.
    warmup_fraction: share of the steps, in [0, 1).

  Raises:
    InputError: unknown name, or a peak or fraction out of range.
  """
  if not 0 <= peak < math.inf:
    raise InputError(f"config.optim.learning_rate: {peak} is not a finite number of at least 0; correct it")
  if name not in SCHEDULES:
    raise InputError(f"config.optim.schedule: {name!r} is unknown; choose one of {', '.join(SCHEDULES)}")
  if not 0 <= warmup_fraction < 1:
    raise InputError(f"config.optim.warmup_fraction: {warmup_fraction} is not in [0, 1)")
  warmup = round(steps * warmup_fraction)
  decay = SCHEDULES[name](peak, steps - warmup)
  if not warmup:
    return decay
  return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def make_optimizer(
  name: str,
  schedule: optax.Schedule,
  *,
  clip: float,
  weight_decay: float = 0.0,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  mu_dtype: str = "",
) -> optax.GradientTransformation:
  """Clip by global norm, then the named optimizer.

  Args:
    name: of OPTIMIZERS.
    schedule: of `make_schedule`.
    clip: largest global gradient norm; 0 switches clipping off.
    weight_decay: decoupled; norm scales and biases are exempt.
    b1, b2: decay rates of the moments (Adafactor uses neither: its second moment has its own schedule).
    eps: AdamW's denominator.
    mu_dtype: of MU_DTYPES, the type of AdamW's and Lion's first moment; "": the parameters'. In bfloat16 it takes half
      the memory. There is no such choice for AdamW's second moment: with 8 bits, one that decays by 0.001 stands still.

  Raises:
    InputError: unknown name, a number out of range, or one that the named optimizer would ignore.
  """
  _check_numbers(clip=clip, weight_decay=weight_decay, b1=b1, b2=b2, eps=eps)
  _check_unused(name, {"b1": b1, "b2": b2, "eps": eps, "mu_dtype": mu_dtype})
  if mu_dtype not in MU_DTYPES:
    raise InputError(f"config.optim.mu_dtype: {mu_dtype!r} is unknown; choose one of {', '.join(MU_DTYPES[1:])}")
  mu = mu_dtype or None
  if name == "adamw":
    tx = optax.adamw(schedule, b1=b1, b2=b2, eps=eps, mu_dtype=mu, weight_decay=weight_decay, mask=_decayed)
  elif name == "lion":
    tx = optax.lion(schedule, b1=b1, b2=b2, mu_dtype=mu, weight_decay=weight_decay, mask=_decayed)
  elif name == "adafactor":
    # Adafactor multiplies by its rate before it decays, so the schedule has to scale the decay as well.
    tx = optax.chain(
      optax.adafactor(learning_rate=None, multiply_by_parameter_scale=False),
      optax.add_decayed_weights(-weight_decay, mask=_decayed),
      optax.scale_by_schedule(schedule),
    )
  else:
    raise InputError(f"config.optim.name: {name!r} is unknown; choose one of {', '.join(OPTIMIZERS)}")
  return optax.chain(optax.clip_by_global_norm(clip), tx) if clip else tx


def kept_on_host(tx: optax.GradientTransformation) -> optax.GradientTransformation:
  """The same optimizer for a state that lies in the memory of the hosts, where its shardings have put it.

  The state comes to the devices for the update; the shardings of the step's results take it back.
  """

  def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    return tx.update(updates, jax.device_put(state, jax.memory.Space.Device), params)

  return optax.GradientTransformation(tx.init, update)


def _check_numbers(*, clip: float, weight_decay: float, b1: float, b2: float, eps: float) -> None:
  for key, rate in (("b1", b1), ("b2", b2)):
    if not 0 <= rate < 1:
      raise InputError(f"config.optim.{key}: {rate} is not in [0, 1); the usual value is {DEFAULTS[key]}")
  if not 0 < eps < math.inf:
    raise InputError(f"config.optim.eps: {eps} is not a finite positive number; the usual value is {DEFAULTS['eps']}")
  if not 0 <= clip < math.inf:
    raise InputError(f"config.optim.clip: {clip} is not a finite number of at least 0; 0 switches clipping off")
  if not 0 <= weight_decay < math.inf:
    raise InputError(f"config.optim.weight_decay: {weight_decay} is not a finite number of at least 0; correct it")


def _check_unused(name: str, values: dict[str, float | str]) -> None:
  for key in UNUSED.get(name, ()):
    value, default = values[key], DEFAULTS[key]
    if value != default:
      raise InputError(
        f"config.optim.{key}: {value} has no effect on {name}; leave it at {default!r}, or set name to adamw"
      )


def _decayed(params: Any) -> Any:
  """Mask of the parameters that weight decay acts on."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: str(getattr(path[-1], "key", path[-1])) not in ("scale", "bias"), params
  )
