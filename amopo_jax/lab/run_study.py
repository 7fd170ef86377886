"""`amopo lab STUDY`: its jobs in processes side by side, then its report."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import jax

from amopo_jax.lab.given import Given
from amopo_jax.lab.jobs import at_given_rate, jobs_of, with_asked
from amopo_jax.lab.pool import run_jobs, undone
from amopo_jax.lab.report import write_report
from amopo_jax.lab.studies import Size, Study
from amopo_jax.lock import hold_workdir
from amopo_jax.run_spec import RunSpec
from amopo_jax.types import InputError, RunFailure


def run_study(
  study: Study,
  folder: Path,
  *,
  start: RunSpec,
  run: RunSpec,
  size: Size,
  workers: int,
  command: str,
  tell: Callable[[str], None],
  given: Given | None = None,
) -> Path:
  """Does what is left of a study, and writes its report.

  Args:
    study: what to compare.
    folder: of everything; interrupted, the same call goes on from what is there.
    start, run: of `jobs_of`.
    size: how much of it.
    workers: of `run_jobs`.
    command: shown in the report.
    tell: hears of every job.
    given: of `jobs_of`.

  Returns:
    Path of the page.

  Raises:
    InputError: the folder is in use, has a name that paths of data cannot have, or holds what other settings made.
    StoppedError: a signal stopped it where jobs are done by this process.
    RunFailure: jobs are not done; the page says which, unless nothing came out of it.
  """
  began = time.monotonic()
  _share_compilation_cache()
  folder = _resolved(folder)
  folder.mkdir(parents=True, exist_ok=True)
  jobs = jobs_of(study, start, run, size, given)
  with hold_workdir(str(folder)):
    answers = run_jobs(jobs, folder, workers=workers, tell=tell)
  left = undone(jobs, answers, folder)
  if not any(name.startswith("seed") for name in answers):
    raise RunFailure(f"{folder}: no job came to an end; {'; '.join(dict.fromkeys(left.values()))}")
  seconds = time.monotonic() - began
  page = folder / "reports" / study.name / "report.md"
  if jax.process_index() == 0:
    write_report(
      at_given_rate(study) if given else study,
      with_asked(answers),
      left,
      folder,
      size=size,
      command=command,
      seconds=seconds,
    )
  if left:
    raise RunFailure(
      f"{page}: {len(left)} of {len(jobs)} jobs are not done, as the page says; the same command does them"
    )
  return page


def _resolved(folder: Path) -> Path:
  """As it stands in the configs of jobs, from wherever the study is gone on with."""
  found = folder.resolve()
  if any(sign in str(found) for sign in ",*?["):
    raise InputError(f"--out={found}: commas, * ? and [ mean something in paths of data; choose another folder")
  return found


def _share_compilation_cache() -> None:
  """Workers take what this process is told from their environment: seeds run the same programs."""
  os.environ["JAX_COMPILATION_CACHE_DIR"] = str(jax.config.values["jax_compilation_cache_dir"] or "")
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
