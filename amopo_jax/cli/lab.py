"""amopo lab world --out=DIR [--seed=0] [--train=N] [--heldout=N] [--dial=conflict=0.8]...
amopo lab grade --responses=BEFORE.jsonl,AFTER.jsonl [--dimensions=3]
amopo lab STUDY --out=DIR [--seeds=5] [--arms=amopo,dpo] [--workers=N] [--smoke]
amopo lab STUDY --out=DIR --judge=CMD --model=M --train_data=FILE --heldout_data=FILE --config=FILE [--processes=auto]

`world` writes the synthetic world: preference records graded by program in several dimensions, and their tokenizer.
`grade` gives the true scores of what `amopo generate` answered to its questions. A study trains and compares policies
on such worlds, several at a time, and writes a report; interrupted, the same command goes on. With a judge it does so
on a model and records that are given, on all chips, of several machines too.
"""

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections.config_flags import get_config_filename

from amopo_jax.cli.configs import define_config
from amopo_jax.cli.joining import define_processes, joined
from amopo_jax.cli.parse import require
from amopo_jax.cli.platforms import has_accelerator
from amopo_jax.stopping import EXIT_STATUS, StoppedError
from amopo_jax.types import InputError

if TYPE_CHECKING:
  from amopo_jax.lab.given import Given

STUDIES = (
  "baselines",
  "weights",
  "rates",
  "margins",
  "ties",
  "noise",
  "capacity",
  "domains",
  "dialogue",
  "template",
  "steering",
)
_WRITTEN, _STUDIED = 400, 200
"""Held-out records of a world that is written, and of each of a study's."""

_NAMED = ("arms", "judge", "model", "train_data", "heldout_data")
_SIZES = ("seeds", "train", "heldout", "base_steps", "start_steps", "steps", "max_new", "draws")
"""Flags that say how much a study does."""

SUBJECTS = ("world", "grade", *STUDIES)
"""What may follow `amopo lab`."""


def define(values: flags.FlagValues, arguments: list[str]) -> None:
  """Flags of this verb."""
  define_config(values, arguments)
  define_processes(values)
  flags.DEFINE_string(
    "out", None, "world, study: directory to write; what it holds already is not done again", flag_values=values
  )
  flags.DEFINE_integer("seed", 0, "world: its name", flag_values=values)
  flags.DEFINE_integer("train", 4000, "world, study: training records", flag_values=values)
  flags.DEFINE_integer(
    "heldout", 0, "world, study: held-out records, on other questions; 0: 400, of a study 200", flag_values=values
  )
  flags.DEFINE_multi_string("dial", [], "world: a field of WorldSpec, as domain=arithmetic", flag_values=values)
  flags.DEFINE_integer("seeds", 5, "study: runs of everything", lower_bound=1, flag_values=values)
  flags.DEFINE_list("arms", [], "study: of its arms, these; others are named where one is wrong", flag_values=values)
  flags.DEFINE_integer("base_steps", 800, "study: of a start's base", lower_bound=1, flag_values=values)
  flags.DEFINE_integer("start_steps", 300, "study: of a seed's supervised start", lower_bound=1, flag_values=values)
  flags.DEFINE_integer("steps", 100, "study: of what follows", lower_bound=1, flag_values=values)
  flags.DEFINE_integer("max_new", 32, "study: most tokens of a response", lower_bound=1, flag_values=values)
  flags.DEFINE_integer("draws", 4, "study: sampled responses to a question", lower_bound=1, flag_values=values)
  flags.DEFINE_integer(
    "workers",
    0,
    "study: processes side by side; 0: one per core, or this one where chips are",
    lower_bound=0,
    flag_values=values,
  )
  text = lambda name, about: flags.DEFINE_string(name, "", f"study: {about}", flag_values=values)
  text("judge", "a command that scores responses (docs/lab.md), in the place of the worlds' programs")
  text("model", "with a judge: what all methods begin with, Hugging Face directory or hub name, or a workdir")
  text("train_data", "with a judge: native records to train on")
  text("heldout_data", "with a judge: native records, to whose questions policies answer")
  flags.DEFINE_boolean("smoke", False, "study: four arms, a few steps: does it run?", flag_values=values)
  flags.DEFINE_list("responses", None, "grade: files of amopo generate, such as before,after", flag_values=values)
  flags.DEFINE_integer(
    "dimensions", 3, "grade: in how many, as the world's dial", lower_bound=2, upper_bound=6, flag_values=values
  )


def run(values: flags.FlagValues, subject: str) -> int:
  """Does what the subject says."""
  _check_whose(values, subject)
  if subject in STUDIES:
    return _run_study(values, subject)
  return _write_world(values) if subject == "world" else _grade(values)


def _check_whose(values: flags.FlagValues, subject: str) -> None:
  """Refuses a flag that another subject has; the help of each begins with those that have it."""
  kind = "study" if subject in STUDIES else subject
  given = [name for name in values if values[name].present]
  for name in given:
    owners = (values[name].help or "").partition(":")[0].split(", ")
    if set(owners) <= {"world", "study", "grade"} and kind not in owners:
      raise InputError(f"--{name} is a flag of amopo lab {' and '.join(owners)}, not of {subject}; leave it out")
  sizes = [name for name in given if name in _SIZES]
  if values.smoke and sizes:
    raise InputError(f"--smoke says how much is done, and so does --{sizes[0]}; leave one out")


def _run_study(values: flags.FlagValues, name: str) -> int:
  require(values, "out")
  if "://" in values.out:
    raise InputError(f"--out={values.out}: a study is kept on a disk; give a folder, which all processes see")
  import jax

  from amopo_jax.cli.configs import bundled_spec, spec_from_flags
  from amopo_jax.host import free_cores
  from amopo_jax.lab import studies
  from amopo_jax.lab.run_study import run_study

  asked = {key: getattr(values, key) for key in _SIZES}
  asked["heldout"] = asked["heldout"] or _STUDIED
  size = studies.SMOKE if values.smoke else studies.Size(**asked)
  study = studies.chosen(studies.STUDIES[name], values.arms) if values.arms else studies.STUDIES[name]
  told = "--smoke" if values.smoke else " ".join(f"--{key}={value}" for key, value in asked.items())
  given, run = _given(values), spec_from_flags(values) if values.config else bundled_spec("lab")
  is_together = values.processes != "1" or (not values.workers and has_accelerator())
  with joined(values):
    is_first = jax.process_index() == 0
    tell = partial(print, flush=True) if is_first else lambda line: None
    try:
      page = run_study(
        studies.shortened(study) if values.smoke and not values.arms else study,
        Path(values.out),
        start=bundled_spec("lab_sft"),
        run=run,
        size=size,
        workers=0 if is_together else values.workers or len(free_cores()),
        command=" ".join([f"amopo lab {name} --out={values.out}", *_others(values), told]),
        tell=tell,
        given=given,
      )
    except StoppedError as stopped:
      tell(str(stopped))
      return EXIT_STATUS
    if is_first:
      tell(f"{page.read_text()}\n{page}")
  return 0


def _given(values: flags.FlagValues) -> "Given | None":
  """What --judge and its companions say."""
  names = ("judge", "model", "train_data", "heldout_data")
  missing = [name for name in names if not values[name].value]
  if len(missing) == len(names):
    return None
  if missing or not values.config:
    needed = [*missing, *(() if values.config else ("config",))]
    raise InputError(f"--{needed[0]} is missing: a study with a judge needs --{', --'.join((*names, 'config'))}")
  from amopo_jax.lab.given import Given, check_given

  given = Given(values.model, values.train_data, values.heldout_data, values.judge)
  check_given(given)
  return given


def _others(values: flags.FlagValues) -> list[str]:
  """The flags that a report names beside how much was done."""
  told = [name for name in values if values[name].present and name in _NAMED]
  texts = {name: values[name].value for name in told}
  if values.config:
    texts["config"] = get_config_filename(values["config"])
  shown = {name: ",".join(text) if isinstance(text, list) else text for name, text in texts.items()}
  overrides = {name: values[name].value for name in values if name.startswith("config.") and values[name].present}
  return [shlex.quote(f"--{name}={text}") for name, text in {**shown, **overrides}.items()]


def _write_world(values: flags.FlagValues) -> int:
  require(values, "out")
  if "://" in values.out:
    raise InputError(f"--out={values.out}: a world is written to a disk; give a folder, and copy it")
  from amopo_jax.lab.spec import read_dials
  from amopo_jax.lab.write import write_world

  summary = write_world(
    values.out,
    seed=values.seed,
    num_train=values.train,
    num_heldout=values.heldout or _WRITTEN,
    spec=read_dials(values.dial),
  )
  for split in ("train", "heldout"):
    found = summary[split]
    kinds = ", ".join(f"{count} {kind}" for kind, count in found["kinds"].items())
    print(f"{values.out}/{split}.jsonl: {found['records']} records ({kinds}, {found['conflicts']} conflicts)")
  print(f"mean scores by chance {summary['heldout']['chance']}, at the optimum {summary['heldout']['optimum']}")
  return 0


def _grade(values: flags.FlagValues) -> int:
  require(values, "responses")
  from amopo_jax.lab.graders import GRADERS
  from amopo_jax.lab.grading import best_scores, read_scores, table_rows

  files: Sequence[str] = values.responses
  dimensions = tuple(GRADERS)[: values.dimensions]
  head, *rows = table_rows([read_scores(path, dimensions) for path in files], best_scores(files[-1], dimensions))
  print(f"true scores, 0 to 4, of {' → '.join(files)}")
  for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows):
    print(f"| {' | '.join(row)} |")
  return 0
