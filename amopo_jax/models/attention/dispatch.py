"""Which attention a run uses: by name, or by the kind of device.

A backend that cannot take a model's shapes says why, and one that was seen on few devices has to pass a trial on the
device. Asked for by name, a refusal is an error before the step compiles; chosen by `auto`, the reference takes its
place and a line of the log says so.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from amopo_jax.models.attention.fused import Kernel, fused_attention, kernel_shape
from amopo_jax.models.attention.pallas_tpu import pallas_tpu
from amopo_jax.models.attention.pallas_triton import pallas_triton
from amopo_jax.models.attention.reference import attention
from amopo_jax.models.attention.xla_blocks import xla_blocks
from amopo_jax.models.config import ModelConfig
from amopo_jax.types import InputError

_log = logging.getLogger(__name__)

Attention = Callable[..., Array]
"""Anything with the signature and the result of `reference.attention`."""


class Fused(NamedTuple):
  """A backend other than the reference.

  Attributes:
    kernel: its two passes.
    platform: `jax.Device.platform` of the devices that it is for.
    is_unproven: it has to pass the trial first.
  """

  kernel: Kernel
  platform: str
  is_unproven: bool = False


FUSED: dict[str, Fused] = {
  "pallas_tpu": Fused(pallas_tpu(), "tpu"),
  "pallas_triton": Fused(pallas_triton(), "gpu", is_unproven=True),
  "xla_blocks": Fused(xla_blocks(), "cpu"),
}

AUTO, XLA = "auto", "xla"

_TRIAL_LENGTH, _TRIAL_TOLERANCE = 192, 0.03  # tokens, three blocks of a GPU; and thrice what bfloat16 is off

BACKENDS = (AUTO, XLA, *FUSED)
"""Values of `config.model.attention`: by the kind of device, any device, a TPU, an NVIDIA GPU, a CPU."""


class Choice(NamedTuple):
  """The attention of a run.

  Attributes:
    name: of the backend, `auto` resolved.
    attend: as `reference.attention`.
  """

  name: str
  attend: Attention


def choose_attention(
  name: str,
  config: ModelConfig,
  *,
  platform: str,
  tensor: int,
  compute_dtype: Any,
  context: int = 1,
  device: jax.Device | None = None,
) -> Choice:
  """Finds the backend.

  Args:
    name: one of `BACKENDS`.
    config: the decoder.
    platform: of the devices.
    tensor: over how many devices heads are split.
    compute_dtype: of queries, keys and values.
    context: over how many devices the queries of a row are split.
    device: one of this process's devices, for a trial; None: there is none, as where a step is compiled ahead of time.

  Raises:
    InputError: a backend that was asked for by name cannot be, or none can.
  """
  if context > 1 and config.num_kv_heads % tensor:  # the compiler alone would have every device do all queries
    raise InputError(
      f"config.mesh.context={context} needs key heads that config.mesh.tensor={tensor} divides, "
      f"and the model has {config.num_kv_heads}; choose another split"
    )
  by_platform = {fused.platform: key for key, fused in FUSED.items()}
  wanted = by_platform.get(platform, XLA) if name == AUTO else name
  if wanted == XLA:
    return Choice(XLA, attention)
  fused = FUSED[wanted]
  reason = _refusal(fused, config, platform=platform, tensor=tensor, compute_dtype=compute_dtype)
  if reason is None and fused.is_unproven and device is not None:
    reason = _trial(fused.kernel, config, compute_dtype, device)
  if reason is None:
    return Choice(wanted, partial(fused_attention, fused.kernel))
  if name != AUTO:
    raise InputError(f"config.model.attention: {name} cannot be: {reason}; choose auto or xla")
  _log.warning("attention: xla, which is slower, instead of %s: %s", wanted, reason)
  return Choice(XLA, attention)


def _refusal(fused: Fused, config: ModelConfig, *, platform: str, tensor: int, compute_dtype: Any) -> str | None:
  if platform != fused.platform:
    return f"it is for devices of kind {fused.platform}, here they are {platform}"
  if config.num_kv_heads % tensor:
    return f"config.mesh.tensor={tensor} does not divide {config.num_kv_heads} key heads"
  itemsize = jnp.dtype(compute_dtype).itemsize
  heads = config.num_heads, config.num_kv_heads, config.head_dim
  try:
    fused.kernel.blocks(kernel_shape(fused.kernel, config.max_positions, *heads, itemsize))
  except ValueError as error:
    return str(error)
  return None


def _trial(kernel: Kernel, config: ModelConfig, compute_dtype: Any, device: jax.Device) -> str | None:
  """Why a kernel is not to be trusted on a device, found by a short row with the model's heads; None if it passed.

  The row is a fork, 64 tokens with two branches of 48, and padding; a model with a window has a short one here.
  """
  draw = np.random.default_rng(0)
  row = lambda heads: draw.normal(size=(1, _TRIAL_LENGTH, heads, config.head_dim)).astype(compute_dtype)
  rows = row(config.num_heads), row(config.num_kv_heads), row(config.num_kv_heads)
  place = np.arange(_TRIAL_LENGTH, dtype=np.int32)[None]
  end = np.select([place < 64, place < 112, place < 160], [160, 112, 160], 0)
  reach: dict[str, Any] = {"subtree_end": jnp.asarray(end, jnp.int32), "chunk": 64}
  if config.sliding_window is not None:
    reach |= {
      "positions": jnp.asarray(np.where(place < 112, place, place - 48)),
      "window": min(config.sliding_window, 80),
    }

  def gradients(attend: Attention) -> tuple[Array, ...]:
    def total(q: Array, k: Array, v: Array) -> Array:
      output = attend(q, k, v, **reach).astype(jnp.float32)
      return jnp.sum(jnp.square(jnp.where(end[..., None, None] > 0, output, 0.0)))

    return jax.jit(jax.grad(total, (0, 1, 2)))(*rows)

  try:
    with jax.default_device(device):
      found, expected = gradients(partial(fused_attention, kernel)), gradients(attention)
  except Exception as error:  # a compiler that refuses has errors of its own
    return f"its trial failed: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
  far = np.max([_distance(x, y) for x, y in zip(found, expected, strict=True)])  # NaN if one is
  return None if far <= _TRIAL_TOLERANCE else f"in its trial it was {far:.2g} of the largest gradient off"


def _distance(found: Array, expected: Array) -> float:
  mine, theirs = np.asarray(found, np.float32), np.asarray(expected, np.float32)
  return float(np.max(np.abs(mine - theirs)) / np.max(np.abs(theirs)))
