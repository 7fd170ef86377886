"""Optimizers and schedules by name, all of them optax's."""

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


def make_schedule(name: str, *, peak: float, steps: int, warmup_fraction: float) -> optax.Schedule:
  """Learning rate over steps: linear warm-up from 0, then the named decay to 0.

  Args:
    name: of SCHEDULES.
    peak: learning rate at the end of the warm-up.
    steps: length of the run.
    warmup_fraction: share of the steps, in [0, 1).

  Raises:
    InputError: unknown name, or a fraction out of range.
  """
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
) -> optax.GradientTransformation:
  """Clip by global norm, then the named optimizer.

  Args:
    name: of OPTIMIZERS.
    schedule: of `make_schedule`.
    clip: largest global gradient norm; 0 switches clipping off.
    weight_decay: decoupled; norm scales and biases are exempt.
    b1, b2: decay rates of the moments (Adafactor uses neither: its second moment has its own schedule).
    eps: AdamW's denominator.

  Raises:
    InputError: unknown name.
  """
  if name == "adamw":
    tx = optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=_decayed)
  elif name == "lion":
    tx = optax.lion(schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=_decayed)
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


def _decayed(params: Any) -> Any:
  """Mask of the parameters that weight decay acts on."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: str(getattr(path[-1], "key", path[-1])) not in ("scale", "bias"), params
  )
