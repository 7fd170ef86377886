"""Regime of every test: typed shapes are checked, ranks never promote silently, eight virtual CPU devices.

The checks sit in the import hook below, so the package itself pays nothing for them.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest
from jaxtyping import install_import_hook

install_import_hook("amopo_jax", "beartype.beartype").install()

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_threefry_partitionable", True)


@pytest.fixture(scope="session")
def fixtures():
  """The folder of small files written by this project."""
  import pathlib

  return pathlib.Path(__file__).parent / "fixtures"
