"""`amopo doctor`: what this machine has, and whether a config, a model and a data file would work; trains nothing."""

import importlib.metadata
import platform
from collections.abc import Iterator

import jax
import numpy as np

from amopo_jax import build
from amopo_jax.data.sources import open_source
from amopo_jax.models.transformer import abstract_params
from amopo_jax.policy import PolicySource, find_policy
from amopo_jax.run_spec import RunSpec

PACKAGES = (
  "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "tensorflow-datasets"
)  # fmt: skip


def describe_machine() -> Iterator[tuple[str, str]]:
  """(what, finding) of the machine: versions, devices, memory."""
  yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
  for package in PACKAGES:
    yield package, _version(package)
  devices = jax.devices()
  yield (
    "devices",
    f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform}), {jax.process_count()} process(es)",
  )
  stats = devices[0].memory_stats() or {}
  if "bytes_limit" in stats:
    yield "memory per device", f"{stats['bytes_limit'] / 2**30:.1f} GiB"
  else:
    yield "memory", f"{_host_memory() / 2**30:.1f} GiB (host)"
  yield "compilation cache", str(jax.config.jax_compilation_cache_dir or "off")


def describe_model(path: str, arch: dict | None = None) -> Iterator[tuple[str, str]]:
  """(what, finding) of a model; raises InputError for the first thing that is wrong."""
  source = find_policy(path, arch or {})
  yield "architecture", source.config.architecture
  yield "parameters", f"{count_parameters(source) / 1e6:,.1f} M"
  yield "vocabulary", f"{source.config.vocab_size}"
  yield "layers × width", f"{source.config.num_layers} × {source.config.width}"
  yield (
    "checkpoint",
    "random weights" if not source.path else f"step {source.step}" if source.step is not None else "complete",
  )


def describe_data(path: str, format: str) -> Iterator[tuple[str, str]]:
  """(what, finding) of a data file; raises InputError for the first record that is wrong."""
  source = open_source(path, format=format)
  dimensions: dict[str, list[float]] = {}
  chosen = 0
  for number in range(len(source)):
    record = source[number]
    chosen += record.chosen is not None
    for response in record.responses:
      for name, value in response.scores.items():
        dimensions.setdefault(name, []).append(value)
  yield "records", f"{len(source)}, {chosen} of them say which response was chosen"
  for name, values in dimensions.items():
    yield (
      f"dimension {name}",
      f"{len(values)} scores from {min(values):g} to {max(values):g}, mean {np.mean(values):.2f}",
    )


def describe_config(spec: RunSpec) -> Iterator[tuple[str, str]]:
  """(what, finding) of a whole config, by the checks a run makes; raises InputError for the first mistake."""
  mesh = build.build_mesh(spec)
  source = find_policy(spec.model.path, dict(spec.model.arch))
  yield from describe_model(spec.model.path, dict(spec.model.arch))
  build.build_objective(spec.objective, len(spec.data.contexts), parts=1)
  params = abstract_params(source.config, build.dtype("config.model.param_dtype", spec.model.param_dtype))
  build.param_shardings(spec, params, mesh)
  data = build.build_data(spec, source)
  for name, found in data.surveys.items():
    yield (
      f"data {name}",
      f"{found.num_pairs} pairs of {found.num_records} records; {found.num_cut} cut, {found.num_dropped} dropped",
    )
  yield "contexts", ", ".join(data.contexts.names)


def count_parameters(source: PolicySource) -> int:
  """Number of parameters of a policy."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(abstract_params(source.config, np.float32)))


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return "not installed"


def _host_memory() -> int:
  import os

  return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
