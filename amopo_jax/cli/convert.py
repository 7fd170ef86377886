"""amopo convert --format=FORMAT --data=FILE --out=FILE.jsonl        native records
amopo convert --tfds=NAME --data=FILE --out=DIR                    a TFDS data set (array_record)

Turns records in another format (the USR dialogues, or any adapter's) into native JSON Lines; or a HelpSteer2-style
file into a TFDS data set, which a config reads as `tfds:NAME`.
"""

from pathlib import Path

from absl import flags

from amopo_jax.cli.parse import require


def define(values: flags.FlagValues, arguments: list[str]) -> None:
  """Flags of this verb."""
  del arguments
  flags.DEFINE_string("data", None, "file to read", flag_values=values)
  flags.DEFINE_string("format", "usr", "its format: usr, or the name of an adapter", flag_values=values)
  flags.DEFINE_enum("on_error", "raise", ["raise", "skip"], "what becomes of a bad record", flag_values=values)
  flags.DEFINE_string("tfds", "", "name of a TFDS data set to build instead", flag_values=values)
  flags.DEFINE_string("out", None, "file to write; for --tfds the folder of TFDS data sets", flag_values=values)


def run(values: flags.FlagValues) -> int:
  """Converts."""
  require(values, "data", "out")
  path, out = values.data, values.out
  if values.tfds:
    from amopo_jax.data.tfds_builder import build_tfds

    print(f"{build_tfds(path, out, name=values.tfds)}")
    return 0
  from amopo_jax.data.convert import convert

  done = convert(path, format=values.format, out=Path(out), on_error=values.on_error)
  print(f"{out}: {done.num_records} records" + (f", {done.num_skipped} skipped" if done.num_skipped else ""))
  for reason in done.skip_reasons:
    print(f"  {reason.count} × such as {reason.example}")
  return 0
