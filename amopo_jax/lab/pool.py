"""Jobs that need each other, in processes side by side, each on a core of its own; what is done is not done again.

    folder/NAME/asked          digest of what a job is asked, and of the jobs it needs
    folder/NAME/result.json    what it returned
    folder/NAME/failed.txt     why it did not

A job that was interrupted or failed finds its folder as it left it; one that is asked something else finds it empty,
but what another question has an answer to is not thrown away.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from amopo_jax import processes
from amopo_jax.lab.workers import started
from amopo_jax.provenance import commit
from amopo_jax.stopping import StoppedError
from amopo_jax.types import InputError

ASKED, RESULT, FAILED = "asked", "result.json", "failed.txt"
TOOK, CODE = "took", "commit"
"""Keys of every answer: seconds of a worker, of a job that was interrupted those of the last attempt; the code."""
Answer = dict[str, Any]
"""JSON-able."""


class Job(NamedTuple):
  """One piece of work.

  Attributes:
    name: of its folder, relative, such as "seed0/dpo".
    do: a function of a module, (folder, **asked) -> answer; it finds what it needs in the folders beside its own.
    asked: its other arguments, JSON-able.
    needs: names of jobs that must be done before.
  """

  name: str
  do: Callable[..., Answer]
  asked: Mapping[str, Any]
  needs: tuple[str, ...] = ()


def run_jobs(
  jobs: Sequence[Job], folder: Path, *, workers: int, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Answer]:
  """Does what is not done yet.

  Args:
    jobs: each after the ones it needs.
    folder: of all of them.
    workers: processes at a time; 0: none but this one, or all of a run of several, which do each job together.
    tell: hears of every job that ends.

  Returns:
    Answers by name; of a job that failed, or needs one that failed, there is none.

  Raises:
    InputError: a folder holds the answer to another question.
    StoppedError: a signal stopped a job of this process, which had saved.
  """
  digests = _digests(jobs)
  _keep_other_answers(jobs, folder, digests)
  answers = {job.name: found for job in jobs if (found := _done(folder / job.name, digests[job.name])) is not None}
  answers = processes.from_first(answers)
  waiting = [job for job in jobs if job.name not in answers]
  if not waiting:
    return answers
  for job in waiting:
    (folder / job.name / FAILED).unlink(missing_ok=True)
  code = commit()  # before the workers read it; it may change while they work
  tell(f"{len(answers)} of {len(jobs)} jobs are done already" if answers else f"{len(jobs)} jobs")
  if not workers:
    return _do_together(waiting, folder, digests, code, answers, tell)
  with started(workers) as pool:
    running: dict[concurrent.futures.Future[Answer], Job] = {}
    while waiting or running:
      ready = [job for job in waiting if all(need in answers for need in job.needs)]
      for job in ready[: workers - len(running)]:
        waiting.remove(job)
        running[pool.submit(_do, job, str(folder / job.name), digests[job.name], code)] = job
      if not running:
        break  # what still waits needs a job that failed
      ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
      for future in ended:
        job, error = running.pop(future), future.exception()
        answers |= {} if error else {job.name: future.result()}
        tell(f"{len(answers)} of {len(jobs)}: {job.name}" + (f" failed: {error}" if error else ""))
      if any(isinstance(future.exception(), concurrent.futures.BrokenExecutor) for future in ended):
        break  # a worker was killed, and the others with it
  return answers


def _do_together(
  waiting: Sequence[Job],
  folder: Path,
  digests: Mapping[str, str],
  code: str,
  answers: dict[str, Answer],
  tell: Callable[[str], None],
) -> dict[str, Answer]:
  """One job after the other in this process, with the chips that it has; of several, all are in the same job."""
  count = len(waiting) + len(answers)
  for job in waiting:
    if not all(need in answers for need in job.needs):
      continue
    try:
      answers[job.name] = _do(job, str(folder / job.name), digests[job.name], code)
    except Exception as error:
      if processes.is_several() or isinstance(error, StoppedError):
        raise  # ends all of them
      tell(f"{len(answers)} of {count}: {job.name} failed: {error}")
    else:
      tell(f"{len(answers)} of {count}: {job.name}")
  return answers


def undone(jobs: Sequence[Job], answers: Mapping[str, Answer], folder: Path) -> dict[str, str]:
  """Why not, by name of the jobs that have no answer."""
  return {job.name: _why(job, answers, folder) for job in jobs if job.name not in answers}


def _why(job: Job, answers: Mapping[str, Answer], folder: Path) -> str:
  failed = folder / job.name / FAILED
  if failed.exists():
    return (failed.read_text().strip().splitlines() or ["its reason could not be written"])[-1]
  missing = [need for need in job.needs if need not in answers]
  return f"needs {', '.join(missing)}" if missing else "a worker was killed"


def _digests(jobs: Sequence[Job]) -> dict[str, str]:
  """Of what each job was asked, and of those it needs."""
  found: dict[str, str] = {}
  for job in jobs:
    missing = [need for need in job.needs if need not in found]
    if missing or job.name in found:
      raise InputError(f"job {job.name}: needs {', '.join(missing)} before it" if missing else f"two jobs {job.name}")
    told = [job.do.__module__, job.do.__qualname__, dict(job.asked), [found[need] for need in job.needs]]
    found[job.name] = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
  return found


def _done(folder: Path, digest: str) -> Answer | None:
  if _asked(folder) != digest or not (folder / RESULT).exists():
    return None
  return json.loads((folder / RESULT).read_text())


def _keep_other_answers(jobs: Sequence[Job], folder: Path, digests: Mapping[str, str]) -> None:
  others = [
    folder / job.name
    for job in jobs
    if (folder / job.name / RESULT).exists() and _asked(folder / job.name) != digests[job.name]
  ]
  if others:
    raise InputError(
      f"{others[0]}: done with other steps, sizes or config keys"
      + (f", and so are {len(others) - 1} more" if others[1:] else "")
      + "; give another --out, or delete what need not be kept"
    )


def _asked(folder: Path) -> str:
  return (folder / ASKED).read_text() if (folder / ASKED).exists() else ""


def _do(job: Job, folder: str, digest: str, code: str) -> Answer:
  """In a worker, or in all processes."""
  place = Path(folder)
  if jax.process_index() == 0 and _asked(place) != digest:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / ASKED).write_text(digest)
  processes.meet()
  began = time.monotonic()
  try:
    answer = job.do(place, **job.asked) | {TOOK: time.monotonic() - began, CODE: code}
  except Exception:
    with contextlib.suppress(OSError):  # of a full disk
      (place / FAILED).write_text(traceback.format_exc())
    raise
  if jax.process_index() == 0:
    fresh = place / f"{RESULT}.new"
    fresh.write_text(json.dumps(answer, indent=1) + "\n")
    fresh.replace(place / RESULT)
  return answer
