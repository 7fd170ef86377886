"""amopo train --config=configs/X.py --workdir=DIR [--config.a.b=v …] [--processes=auto|N …]

Trains, or goes on with the run that DIR holds. DIR may be gs://. Of several processes, each is started with the same
command and sees the same DIR, model and data.
"""

from absl import flags

from amopo_jax.cli.configs import define_config, spec_from_flags
from amopo_jax.cli.joining import define_processes, joined
from amopo_jax.cli.parse import require


def define(values: flags.FlagValues, arguments: list[str]) -> None:
  """Flags of this verb."""
  define_config(values, arguments)
  flags.DEFINE_string(
    "workdir",
    None,
    "folder of the run, local or gs://; one that holds it already is resumed",
    flag_values=values,
  )
  define_processes(values)


def run(values: flags.FlagValues) -> int:
  """Trains."""
  require(values, "workdir")
  spec = spec_from_flags(values)
  from amopo_jax.console import make_console
  from amopo_jax.stopping import EXIT_STATUS
  from amopo_jax.train import train

  with joined(values):
    console = make_console()
    outcome = train(spec, values.workdir, console)
  if outcome.stopped_by:
    where = f"saved at step {outcome.step}" if outcome.step else "stopped before the first step"
    console.print(f"{outcome.stopped_by}: {where}; the same command goes on from there")
    return EXIT_STATUS
  console.print(f"done: {outcome.step} steps; amopo export --workdir={values.workdir} --out=DIR writes the model")
  return 0
