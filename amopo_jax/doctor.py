"""`amopo doctor`: what this machine has, and whether a config, a model and a data file would work; trains nothing."""

import importlib.metadata
import os
import platform
from collections.abc import Iterator

import jax
import numpy as np

from amopo_jax.announce import warn_of_skips
from amopo_jax.data.sources import open_source
from amopo_jax.policy import PolicySource, count_parameters, find_policy
from amopo_jax.prepare import prepare
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
  yield "compilation cache", str(jax.config.values["jax_compilation_cache_dir"] or "off")


def describe_model(path: str) -> Iterator[tuple[str, str]]:
  """(what, finding) of a model; raises InputError for the first thing that is wrong."""
  yield from _describe_policy(find_policy(path, {}))


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
  run = prepare(spec, None)
  yield from _describe_policy(run.source)
  for name, found in run.data.surveys.items():
    yield (
      f"data {name}",
      f"{found.num_pairs} pairs of {found.num_records} records; {found.num_cut} cut, {found.num_dropped} dropped",
    )
    for line in warn_of_skips(name, found):
      yield "warning", line.removeprefix("WARNING: ")
  yield "contexts", ", ".join(run.data.contexts.names)
  yield "steps", f"{run.num_steps}" if spec.train.steps else f"about {run.num_steps}"


def _describe_policy(source: PolicySource) -> Iterator[tuple[str, str]]:
  yield "architecture", source.config.architecture
  yield "parameters", f"{count_parameters(source.config) / 1e6:,.1f} M"
  yield "vocabulary", f"{source.config.vocab_size}"
  yield "layers × width", f"{source.config.num_layers} × {source.config.width}"
  weights = "complete" if source.step is None else f"step {source.step}"
  yield "weights", weights if source.path else "random"


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return "not installed"


def _host_memory() -> int:
  return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
