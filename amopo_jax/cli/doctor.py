"""amopo doctor [--config=…] [--model=DIR] [--data=FILE --format=…]

Says what the machine has, and checks a config, a model or a data file without training.
"""

from absl import flags

from amopo_jax.cli.configs import define_config, spec_from_flags


def define(values: flags.FlagValues, arguments: list[str]) -> None:
  """Flags of this verb."""
  define_config(values, arguments)
  flags.DEFINE_string("model", None, "Hugging Face directory or hub name, or a workdir", flag_values=values)
  flags.DEFINE_string("data", None, "a data file", flag_values=values)
  flags.DEFINE_string("format", "native", "adapter that reads it (docs/data.md)", flag_values=values)


def run(values: flags.FlagValues) -> int:
  """Prints every finding; the first mistake ends it as an InputError."""
  from amopo_jax import doctor
  from amopo_jax.console import make_console

  console = make_console()
  sections = [("machine", doctor.describe_machine())]
  if values.model:
    sections.append((values.model, doctor.describe_model(values.model)))
  if values.data:
    sections.append((values.data, doctor.describe_data(values.data, values.format)))
  if values.config is not None:
    sections.append(("config", doctor.describe_config(spec_from_flags(values))))
  for title, findings in sections:
    console.print(title)
    for what, finding in findings:
      console.print(f"  {what:20} {finding}")
  console.print("all of this works")
  return 0
