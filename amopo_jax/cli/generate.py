"""amopo generate --model=HF_DIR|HUB_NAME|WORKDIR --data=FILE --out=FILE [--contexts=A,B] [--score=4] [--temperature=0]

Answers every prompt in every context, greedily unless a temperature is given. A prompt is a line {"prompt": …} or any
record. Interrupted, the same command goes on. Contexts and tokenizer come from --config, else from the workdir's run.
With --replicas=2, two cores of a CPU each answer a part of a batch: up to 1.9 times as fast if the model is small.
"""

import dataclasses

from absl import flags

from amopo_jax.cli.configs import define_config, policy_spec
from amopo_jax.cli.joining import define_processes, joined
from amopo_jax.cli.parse import require
from amopo_jax.cli.platforms import has_accelerator
from amopo_jax.run_spec import MeshSpec
from amopo_jax.types import InputError


def define(values: flags.FlagValues, arguments: list[str]) -> None:
  """Flags of this verb."""
  define_config(values, arguments)
  text = lambda name, default, about: flags.DEFINE_string(name, default, about, flag_values=values)
  whole = lambda name, default, about: flags.DEFINE_integer(name, default, about, flag_values=values)
  number = lambda name, default, about: flags.DEFINE_float(name, default, about, flag_values=values)
  text("model", None, "Hugging Face directory or hub name, or the workdir of a run")
  text("data", None, "prompts, or records of which the prompts are taken")
  text("format", "native", "adapter that reads them (docs/data.md)")
  text("out", None, "JSONL file to write; must not exist")
  text("contexts", "", "names of contexts, separated by commas; default: all")
  number("score", None, "that every context asks for; default: the highest of its range")
  whole("num_samples", 1, "responses to each prompt in each context")
  whole("max_new", 256, "most tokens of a response")
  number("temperature", 0.0, "of the softmax; 0: always the likeliest token")
  whole("top_k", 0, "draw among so many of the likeliest tokens; 0: all")
  number("top_p", 1.0, "draw among the likeliest tokens that have this probability together")
  whole("batch_size", 64, "responses at a time")
  whole("seed", 0, "of the draws")
  whole("replicas", None, "groups of devices, or cores of a CPU, each with all parameters; -1: all there are")
  whole("step", None, "checkpoint of a workdir; default: the newest")
  define_processes(values)


def run(values: flags.FlagValues) -> int:
  """Generates."""
  require(values, "model", "data", "out")
  from amopo_jax.console import make_console
  from amopo_jax.generate import Request, generate
  from amopo_jax.models.sampling import Sampling

  request = Request(
    data=values.data,
    format=values.format,
    score=values.score,
    num_samples=values.num_samples,
    max_new=values.max_new,
    batch_size=values.batch_size,
    seed=values.seed,
    contexts=tuple(name for name in values.contexts.split(",") if name),
    sampling=Sampling(values.temperature, values.top_k, values.top_p),
  )
  spec = policy_spec(values, values.model)
  if values.replicas is not None:
    spec = dataclasses.replace(spec, mesh=_mesh(spec.mesh, values.replicas, is_alone=values.processes == "1"))
  with joined(values):
    console = make_console()
    count = generate(spec, request, values.out, step=values.step, tell=console.print)
  console.print(f"{values.out}: {count} lines")
  return 0


def _mesh(mesh: MeshSpec, replicas: int, *, is_alone: bool) -> MeshSpec:
  """With so many groups of devices; of a process that is alone on a CPU, of as many of its cores as that takes."""
  from amopo_jax.host import free_cores
  from amopo_jax.mesh import ask_for_cpu_devices

  if replicas < 1 and replicas != -1:
    raise InputError(f"--replicas: {replicas} is neither -1 nor at least 1")
  if is_alone and not has_accelerator():
    ask_for_cpu_devices(replicas * mesh.tensor * mesh.context if replicas > 0 else len(free_cores()))
  return dataclasses.replace(mesh, data=replicas, fsdp=1 if replicas == -1 else -1)
