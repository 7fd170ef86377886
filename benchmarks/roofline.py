"""What a pod's step costs by the TPU compiler's own count, against the analytic count, and a roofline of its time.

    python -m benchmarks.roofline [--topology=v5e:8x8] [--shape=qwen2.5-7b] [--rows-per-chip=1] [--json=FILE]

Needs no TPU: the step of the default config, in bfloat16, parameters and rows split over all chips (FSDP), is compiled
for abstract devices. The compiler does not see into the attention kernels; their products are in neither count. Its
bytes are those of all instructions, as if nothing stayed in fast memory between two of them: an upper bound.

The estimate takes each chip's published peaks for granted and lets products, memory and links overlap perfectly: the
longest of the three times is a lower bound of the step's, their sum the time without any overlap.
"""

import argparse
import dataclasses
import os
import sys
import time
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from amopo_jax.cli.configs import spec_from_config
from amopo_jax.run_spec import RunSpec
from benchmarks import report
from benchmarks.ahead import Cost, compile_step, step_cost
from benchmarks.flops import step_flops
from benchmarks.peers.ours import RECOMPUTED
from benchmarks.peers.serve import Counts
from benchmarks.shapes import SHAPES
from configs import base

K = 4
TOKENS_PER_PAIR, SCORED = 3200, 0.64
"""Of an UltraFeedback pair in four contexts; share of its tokens that the head takes (docs/results)."""


class Chip(NamedTuple):
  """Published peaks of a TPU chip.

  Attributes:
    flops: bfloat16 operations per second.
    memory: bytes per second.
    links: bytes per second to other chips, all links together.
    size: bytes of memory.
  """

  flops: float
  memory: float
  links: float
  size: float


CHIPS = {
  "v5e": Chip(197e12, 819e9, 200e9, 16 * 2**30),
  "v5p": Chip(459e12, 2765e9, 600e9, 95 * 2**30),
  "v6e": Chip(918e12, 1640e9, 448e9, 32 * 2**30),
}


def main() -> None:
  args = arguments()
  jax.config.update("jax_platforms", "cpu")
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # the TPU's compiler is used without a TPU, …
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # … perhaps by several processes
  content = measure(args)
  print(report.align([("", "compiler", "analytic"), *_count_lines(content)]))
  print(report.align([("", "value"), *_estimate_lines(content)]))
  if args.json:
    report.write(args.json, content)


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--topology", default="v5e:8x8", help="kind and chips, as v5p:4x4x4")
  parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-7b")
  parser.add_argument("--rows-per-chip", type=int, default=1)
  parser.add_argument("--row-length", type=int, default=4096)
  parser.add_argument("--remat", default="save_attention", help="config.model.remat")
  parser.add_argument("--json", metavar="FILE")
  args = parser.parse_args()
  if args.topology.partition(":")[0] not in CHIPS:
    parser.error(f"unknown topology {args.topology}; choose of {', '.join(CHIPS)} with chips, as v5e:8x8")
  return args


def measure(args: argparse.Namespace) -> dict[str, Any]:
  """Compiles, counts and estimates; all figures are of one chip but for those that say otherwise."""
  devices = topologies.get_topology_desc(topology_name=args.topology, platform="tpu").devices
  chip, spec = CHIPS[args.topology.partition(":")[0]], make_spec(args, len(devices))
  tokens = args.rows_per_chip * args.row_length
  scored = round(tokens * SCORED)
  pairs = max(1, round(len(devices) * tokens / TOKENS_PER_PAIR))
  began = time.perf_counter()
  memory: Any = compile_step(spec, devices, num_contexts=K, pairs=pairs).memory_analysis()
  seconds = time.perf_counter() - began
  print(f"compiled in {seconds:.0f} s; counting the parts takes three times as long", file=sys.stderr, flush=True)
  counted = step_cost(spec, devices, scored=scored, num_contexts=K, pairs=pairs)
  analytic = step_flops(spec.model.arch, Counts(tokens, scored, 0, (*RECOMPUTED[args.remat], "head")))
  parameters = _parameters(spec)
  return {
    "settings": {name: value for name, value in vars(args).items() if name != "json"},
    "chips": len(devices),
    "parameters": parameters,
    "compile_seconds": seconds,
    "arguments_bytes": memory.argument_size_in_bytes,
    "temporary_bytes": memory.temp_size_in_bytes,
    "peak_bytes": memory.peak_memory_in_bytes,
    "chip_bytes": chip.size,
    "counted": counted._asdict(),
    "analytic": {"model_flops": analytic.model, "flops": analytic.executed, **_least_bytes(parameters, len(devices))},
    **estimate(chip, counted, analytic.model, pairs=pairs),
  }


def make_spec(args: argparse.Namespace, chips: int) -> RunSpec:
  """The default config at a shape, with the TPU's kernels and types."""
  config = base.get_config()
  config.model.arch = SHAPES[args.shape]
  config.model.update(compute_dtype="bfloat16", remat=args.remat, attention="pallas_tpu")
  config.batch.update(rows=chips * args.rows_per_chip, row_length=args.row_length, group_rows=chips)
  config.data.train.none = base.source("none")
  config.data.contexts.none = base.context(template="plain")
  spec = spec_from_config(config)
  return dataclasses.replace(spec, model=dataclasses.replace(spec.model, arch=dict(SHAPES[args.shape])))


def estimate(chip: Chip, cost: Cost, model_flops: float, *, pairs: int) -> dict[str, Any]:
  """Times of a step by its three resources, and what follows from the longest."""
  times = {
    "products": cost.flops / chip.flops,
    "memory": cost.hbm_bytes / chip.memory,
    "links": cost.sent_bytes / chip.links,
  }
  bound = max(times.values())
  return {
    "seconds": times,
    "bound": max(times, key=lambda name: times[name]),
    "least_seconds": bound,
    "most_seconds": sum(times.values()),
    "model_flops_utilization": [model_flops / chip.flops / total for total in (bound, sum(times.values()))],
    "pairs_per_second": [pairs / total for total in (bound, sum(times.values()))],
  }


def _least_bytes(parameters: int, chips: int) -> dict[str, float]:
  """Traffic that no compiler can avoid, per chip: AdamW's, and that of gathering and reducing the parameters.

  Parameters, two moments and gradients of 4 bytes: each read, three written. Over the links all parameters come twice
  in bfloat16, for the forward and the backward pass, and their float32 gradients are summed once.
  """
  return {"update_bytes": (4 + 3) * 4 * parameters / chips, "sent_bytes": (2 + 2 + 4) * parameters}


def _parameters(spec: RunSpec) -> int:
  from amopo_jax.models.hf_config import from_hf
  from amopo_jax.models.transformer import abstract_params

  params = abstract_params(from_hf(spec.model.arch, "shape"), "float32")
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def _count_lines(content: dict[str, Any]) -> list[tuple[str, str, str]]:
  counted, analytic = content["counted"], content["analytic"]
  return [
    ("TFLOP", f"{counted['flops'] / 1e12:.2f}", f"{analytic['flops'] / 1e12:.2f}"),
    ("GB of memory traffic", f"{counted['hbm_bytes'] / 1e9:.1f}", f"≥ {analytic['update_bytes'] / 1e9:.1f}"),
    ("GB over links", f"{counted['sent_bytes'] / 1e9:.1f}", f"≥ {analytic['sent_bytes'] / 1e9:.1f}"),
  ]


def _estimate_lines(content: dict[str, Any]) -> list[tuple[str, str]]:
  both = lambda values, form: " to ".join(format(value, form) for value in values)
  return [
    ("parameters", f"{content['parameters'] / 1e9:.2f} G on {content['chips']} chips"),
    ("memory peak of the chip's", f"{content['peak_bytes'] / 2**30:.1f} of {content['chip_bytes'] / 2**30:.0f} GiB"),
    *[(f"seconds for {name}", f"{value:.3f}") for name, value in content["seconds"].items()],
    ("seconds per step", both((content["least_seconds"], content["most_seconds"]), ".3f")),
    ("model FLOP utilization", both(content["model_flops_utilization"], ".2f")),
    ("pairs per second", both(content["pairs_per_second"], ".1f")),
    ("seconds to compile", f"{content['compile_seconds']:.0f}"),
  ]


if __name__ == "__main__":
  main()
