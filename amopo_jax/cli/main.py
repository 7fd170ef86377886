"""`amopo VERB [--flags]`: finds the verb, parses its flags, and turns mistakes into one line."""

import errno
import importlib
import logging
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from absl import flags
from absl import logging as absl_logging

from amopo_jax.cli.platforms import name_platform
from amopo_jax.stopping import forget_what_was_told, tell

VERBS = {
  "train": "trains; reusing the workdir resumes",
  "score": "length, log-probability, probabilities and reward of every response in a file",
  "generate": "answers prompts in every context, greedily or by chance; goes on where it was interrupted",
  "export": "a checkpoint as a Hugging Face directory",
  "doctor": "what the machine has; checks a config, a model or a data file",
  "plan": "compiles the step for TPUs that are not there: memory, operations, time; what would make it fit",
  "convert": "turns a data set in a format of its own into native records, or into a TFDS data set",
  "lab": "compares methods on a synthetic world (studies); writes its records, grades responses to its questions",
}
USAGE = "usage: amopo VERB [--flags]        amopo VERB --help lists the flags\n\n" + "\n".join(
  f"  {verb:8} {text}" for verb, text in VERBS.items()
)
USAGE_STATUS, FAILURE_STATUS, INTERRUPTED_STATUS = 2, 1, 130


def main(argv: Sequence[str] | None = None) -> NoReturn:
  """Runs one verb and exits: 0 done, 1 the run failed, 2 a mistake in what was given, 143 stopped by a signal."""
  forget_what_was_told()
  argv = list(sys.argv if argv is None else argv)
  verb = argv[1] if len(argv) > 1 else ""
  if verb in ("", "-h", "--help", "help"):
    print(USAGE)
    sys.exit(0 if verb else USAGE_STATUS)
  if verb not in VERBS:
    _exit(f"amopo: unknown verb {verb!r}; the verbs are {', '.join(VERBS)}", USAGE_STATUS)
  _quieten()
  # Not above: this brings in jax, and --help and a mistyped verb should be answered at once.
  from amopo_jax.types import InputError, RunFailure

  try:
    sys.exit(_run(verb, argv[2:]))
  except InputError as error:
    _exit_with_mistake(verb, argv[2:], error)
  except RunFailure as error:
    _exit(f"amopo {verb}: {error}", FAILURE_STATUS)
  except KeyboardInterrupt:
    _exit(f"amopo {verb}: interrupted", INTERRUPTED_STATUS)
  except Exception as error:
    _tell_others(verb, error)
    raise


def _run(verb: str, arguments: list[str]) -> int:
  module = importlib.import_module(f"amopo_jax.cli.{verb}")
  values = flags.FlagValues()
  is_question = bool({"-h", "--help"} & set(arguments))
  module.define(values, [] if is_question else arguments)
  if is_question:
    print(_help(module, values))
    return 0
  from amopo_jax.cli.parse import parse

  subject = parse(values, arguments, subjects=getattr(module, "SUBJECTS", ()))
  _use_compilation_cache()
  return module.run(values, subject) if subject else module.run(values)


def _help(module: ModuleType, values: flags.FlagValues) -> str:
  """The verb's docstring and its flags; not those that absl adds to every program."""
  names = [name for name in values if str(values.find_module_defining_flag(name)).startswith("amopo_jax.")]
  lines = [f"  --{name:9} {values[name].help}{_default(values[name].default)}" for name in names]
  return "\n".join(((module.__doc__ or "").strip(), "", *lines))


def _default(value: object) -> str:
  return "" if value in (None, "") else f" [{value}]"


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
  # Orbax logs a failed read or write over many lines, leaves it to asyncio to do so again, and then raises it.
  absl_logging.set_verbosity(absl_logging.FATAL)
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)
  sys.unraisablehook = lambda found: None if is_known(found.exc_value) else sys.__unraisablehook__(found)
  threading.excepthook = lambda found: None if is_known(found.exc_value) else threading.__excepthook__(found)
  name_platform()


def is_known(error: BaseException | None) -> bool:
  """What comes late of a failure that is told already.

  A failed read or write of Orbax calls back into its event loop, which is closed by then; and TensorBoard's thread
  meets the full disk that stopped the run.
  """
  is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
  return is_full or str(error) == "Event loop is closed"


def _tell_others(verb: str, error: Exception) -> None:
  """Of several processes, ends all with what went wrong in this one; with one alone, Python says it better."""
  processes = sys.modules.get("amopo_jax.processes")
  if processes and processes.is_several():
    processes.wait_if_ending()
    traceback.print_exc()
    _exit(f"amopo {verb}: {processes.find_cause(error)}", FAILURE_STATUS)


def _exit_with_mistake(verb: str, arguments: Sequence[str], error: Exception) -> NoReturn:
  from amopo_jax.cli.joining import join_to_tell

  message = f"amopo {verb}: {error}"
  tell(" ".join(message.split()))
  if "amopo_jax.join" not in sys.modules:  # else they were met, or that is where the mistake lies
    join_to_tell(verb, arguments, USAGE_STATUS)
  _exit(message, USAGE_STATUS)


def _exit(message: str, status: int) -> NoReturn:
  line = " ".join(message.split())
  tell(line)
  if processes := sys.modules.get("amopo_jax.processes"):
    processes.stop_others(line, status)
  sys.exit(status)
