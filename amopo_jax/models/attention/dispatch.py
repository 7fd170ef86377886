"""Which attention a run uses: by name, or by the kind of device.

A backend that cannot take a model's shapes says why. Asked for by name, that is an error before anything compiles;
chosen by `auto`, the reference takes its place and a line of the log says so.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
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
  """

  kernel: Kernel
  platform: str


FUSED: dict[str, Fused] = {
  "pallas_tpu": Fused(pallas_tpu(), "tpu"),
  "pallas_triton": Fused(pallas_triton(), "gpu"),
  "xla_blocks": Fused(xla_blocks(), "cpu"),
}

AUTO, XLA = "auto", "xla"

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


def choose_attention(name: str, config: ModelConfig, *, platform: str, tensor: int, compute_dtype: Any) -> Choice:
  """Finds the backend.

  Args:
    name: one of `BACKENDS`.
    config: the decoder.
    platform: of the devices.
    tensor: over how many devices heads are split.
    compute_dtype: of queries, keys and values.

  Raises:
    InputError: a backend that was asked for by name cannot be.
  """
  by_platform = {fused.platform: key for key, fused in FUSED.items()}
  wanted = by_platform.get(platform, XLA) if name == AUTO else name
  if wanted == XLA:
    return Choice(XLA, attention)
  fused = FUSED[wanted]
  reason = _refusal(fused, config, platform=platform, tensor=tensor, compute_dtype=compute_dtype)
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
