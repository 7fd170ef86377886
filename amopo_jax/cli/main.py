"""`amopo VERB [--flags]`: finds the verb, parses its flags, and turns mistakes into one line."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from absl import flags
from absl import logging as absl_logging

from amopo_jax.types import InputError, RunFailure

VERBS = {
  "train": "trains; reusing the workdir resumes",
  "score": "length, log-probability, probabilities and reward of every response in a file",
  "export": "a checkpoint as a Hugging Face directory",
  "doctor": "what the machine has; checks a config, a model or a data file",
  "convert": "turns a data set in a format of its own into native records, or into a TFDS data set",
  "lab": "writes the synthetic world's records and tokenizer",
}
USAGE = "usage: amopo VERB [--flags]        amopo VERB --help lists the flags\n\n" + "\n".join(
  f"  {verb:8} {text}" for verb, text in VERBS.items()
)
USAGE_STATUS, FAILURE_STATUS, INTERRUPTED_STATUS = 2, 1, 130


def main(argv: Sequence[str] | None = None) -> NoReturn:
  """Runs one verb and exits: 0 done, 1 the run failed, 2 a mistake in what was given, 143 stopped by a signal."""
  argv = list(sys.argv if argv is None else argv)
  verb = argv[1] if len(argv) > 1 else ""
  if verb in ("", "-h", "--help", "help"):
    print(USAGE)
    sys.exit(0 if verb else USAGE_STATUS)
  if verb not in VERBS:
    _exit(f"amopo: unknown verb {verb!r}; the verbs are {', '.join(VERBS)}", USAGE_STATUS)
  _quieten()
  try:
    sys.exit(_run(verb, argv[2:]))
  except InputError as error:
    _exit(f"amopo {verb}: {error}", USAGE_STATUS)
  except RunFailure as error:
    _exit(f"amopo {verb}: {error}", FAILURE_STATUS)
  except KeyboardInterrupt:
    _exit(f"amopo {verb}: interrupted", INTERRUPTED_STATUS)


def _run(verb: str, arguments: list[str]) -> int:
  module = importlib.import_module(f"amopo_jax.cli.{verb}")
  values = flags.FlagValues()
  module.define(values, arguments)
  if {"-h", "--help"} & set(arguments):
    print(f"{(module.__doc__ or '').strip()}\n{values.get_help()}")
    return 0
  _parse(module, values, arguments)
  _use_compilation_cache()
  return module.run(values)


def _parse(module: ModuleType, values: flags.FlagValues, arguments: list[str]) -> None:
  try:
    rest = values(["amopo", *arguments])[1:]
  # A config is a program: whatever it raises is the user's to see, but not our traceback.
  except (
    flags.Error,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    OSError,
    ImportError,
    SyntaxError,
  ) as error:
    raise InputError(str(error) or type(error).__name__) from error
  known = getattr(module, "SUBJECTS", ())
  if rest[:1] and rest[0] not in known or len(rest) > 1 or (known and not rest):
    wanted = f"say what: {', '.join(known)}" if known else "flags are written --name=value"
    raise InputError(f"unexpected argument {rest[-1]!r}; {wanted}" if rest else wanted)


def _use_compilation_cache() -> None:
  """Persistent across runs, unless JAX_COMPILATION_CACHE_DIR says where; "" there switches it off."""
  import jax

  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    jax.config.update("jax_compilation_cache_dir", os.path.join(home, "amopo_jax", "xla"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _quieten() -> None:
  """Libraries tell people only what concerns them."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
  flags.FLAGS.mark_as_parsed()
  absl_logging.set_verbosity(absl_logging.WARNING)
  # Orbax leaves failed reads of a broken checkpoint to asyncio, which would print each of them over many lines.
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _exit(message: str, status: int) -> NoReturn:
  print(" ".join(message.split()), file=sys.stderr)
  sys.exit(status)
