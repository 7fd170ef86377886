"""Which devices the machine has, without asking JAX, which would take them."""

import glob
import importlib.util
import os


def name_platform() -> None:
  """Says "cpu" where it is nothing else: libtpu, which the tests bring, writes much about finding nothing."""
  if "JAX_PLATFORMS" not in os.environ and importlib.util.find_spec("libtpu") and not has_accelerator():
    os.environ["JAX_PLATFORMS"] = "cpu"


def has_accelerator() -> bool:
  """Whether there are chips that JAX may use."""
  if os.environ.get("JAX_PLATFORMS") == "cpu":
    return False
  files = ("/dev/accel*", "/dev/vfio/[0-9]*", "/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")
  return any(glob.glob(pattern) for pattern in files)
