"""From `--config=FILE --config.a.b=v` to a `RunSpec`: the only place below configs/ that knows ConfigDict."""

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from amopo_jax.cli.config_errors import explain
from amopo_jax.run_codec import from_dict
from amopo_jax.run_spec import ContextEntry, RunSpec
from amopo_jax.types import InputError

BUNDLED = "amopo_jax.configs"
"""Name of configs/ in an installed package; in a checkout it is the top-level `configs`."""


def define_config(values: flags.FlagValues, arguments: list[str]) -> None:
  """Adds `--config` and its overrides to a verb's flags.

  Raises:
    InputError: overrides without a config, or a config file that is not there.
  """
  path, overrides = config_arguments(arguments)
  if path is not None:
    _make_importable(path)
  elif overrides:
    raise InputError(f"{overrides[0]}: overrides a key, but --config is missing; name a file")
  config_flags.DEFINE_config_file(
    "config",
    help_string="a config file; --config.a.b=v overrides a key (configs/base.py explains all of them)",
    flag_values=values,
    sys_argv=["amopo", *arguments],
  )


def config_arguments(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
  """What is said of the config: the file of `--config=FILE` or `--config FILE`, and the overrides `--config.a.b=v`."""
  path, overrides = None, []
  for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
    name, equals, value = argument.lstrip("-").partition("=")
    if name == "config" and argument.startswith("-"):
      path = value if equals else following
    if name.startswith("config.") and argument.startswith("-"):
      overrides.append(argument)
  return path, overrides


def spec_from_flags(values: flags.FlagValues) -> RunSpec:
  """The run of `--config`.

  Raises:
    InputError: no config, or one with a wrong key.
  """
  config = values.config
  if config is None:
    raise InputError("--config is missing; name a file such as configs/quickstart.py")
  if not isinstance(config, ConfigDict):
    raise InputError(explain("no config", config_flags.get_config_filename(values["config"]), ()))
  return spec_from_config(config)


def spec_from_config(config: ConfigDict) -> RunSpec:
  """The run of a ConfigDict."""
  return from_dict(config.to_dict())


def policy_spec(values: flags.FlagValues, model: str) -> RunSpec:
  """The run by which a verb that does not train uses a policy: contexts, tokenizer, beta and mesh.

  Args:
    values: with `--config`, which comes first; else the run of a workdir counts, else configs/base.py.
    model: Hugging Face directory or hub name, or a workdir; one without contexts is asked the bare question.

  Raises:
    InputError: a wrong key, or a broken record of a run.
  """
  from amopo_jax.policy import is_workdir, read_run

  if values.config is not None:
    spec = spec_from_flags(values)
  elif is_workdir(model):
    spec = read_run(model).spec
    spec = dataclasses.replace(
      spec, mesh=dataclasses.replace(spec.mesh, data=1, fsdp=-1, context=1, tensor=1, slices=1)
    )
  else:
    spec = base_spec()
  plain = {"plain": ContextEntry(dimension="", template="plain", low=0.0, high=0.0)}
  data = dataclasses.replace(spec.data, contexts=spec.data.contexts or plain)
  return dataclasses.replace(spec, data=data, model=dataclasses.replace(spec.model, path=model, arch={}))


def base_spec() -> RunSpec:
  """The run of configs/base.py, which names no model and no data."""
  return bundled_spec("base")


def bundled_spec(name: str) -> RunSpec:
  """The run of a file of configs/."""
  _alias()
  return spec_from_config(importlib.import_module(f"configs.{name}").get_config())


def _make_importable(path: str) -> None:
  """A config says `from configs import base`: from its own checkout if it lies in one, else from the package."""
  if not Path(path).is_file():
    raise InputError(f"--config={path}: no such file; name one such as configs/quickstart.py")
  for folder in Path(path).absolute().parents:
    if (folder / "configs" / "base.py").is_file():
      sys.path.insert(0, str(folder))
      return
  _alias()


def _alias() -> None:
  """Makes the package's configs the top-level `configs`, where there are no others."""
  if importlib.util.find_spec("configs") is None:
    sys.modules["configs"] = importlib.import_module(BUNDLED)
