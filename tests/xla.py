"""The flags of XLA by which tests compile."""


def flags(devices: int) -> str:
  """So many virtual CPU devices; fusions by XLA's older emitters, which compile in a third of the time."""
  return f"--xla_cpu_use_fusion_emitters=false --xla_force_host_platform_device_count={devices}"
