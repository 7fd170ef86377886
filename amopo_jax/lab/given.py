"""Studies on records and a model that are given, with a judge: their first jobs, in the place of a world's.

worlds/default-N   files/            the records of a seed
seedN/start        path.txt          the model that is given
                   greedy.jsonl, …   its responses, as of any policy
"""

import hashlib
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from amopo_jax import processes
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.judge import check_judge
from amopo_jax.lab.measure import measure
from amopo_jax.lab.work import PATH
from amopo_jax.types import InputError


class Given(NamedTuple):
  """What a study is about instead of worlds.

  Attributes:
    model: that all methods begin with: Hugging Face directory or hub name, or a workdir.
    train, heldout: native records with scores in the lab's dimensions; two responses each in `heldout`.
    judge: command of `judge.judge_lines`.
  """

  model: str
  train: str
  heldout: str
  judge: str


def check_given(given: Given) -> None:
  """Looks for what a study would miss after hours.

  Raises:
    InputError: no such file, no command, or a record that is none of the lab's.
  """
  check_judge(given.judge)
  for flag, path in (("train_data", given.train), ("heldout_data", given.heldout)):
    if not Path(path).is_file():
      raise InputError(f"--{flag}={path}: no such file; give native records (docs/data.md)")
    for number, line in enumerate(_lines(path), start=1):
      _check_record(line, f"--{flag}={path}: record {number}", is_pair=flag == "heldout_data")


def _check_record(line: str, where: str, *, is_pair: bool) -> None:
  try:
    responses = json.loads(line)["responses"]
    scores = [float(response["scores"][name]) for response in responses for name in DIMENSIONS]
  except (ValueError, KeyError, TypeError) as error:
    told = f"{type(error).__name__}: {error}"
    raise InputError(f"{where} is no line with responses scored in {', '.join(DIMENSIONS)} ({told})") from None
  if (is_pair and len(responses) != 2) or not scores:
    raise InputError(f"{where} has {len(responses)} responses; give records of two")


def contents(given: Given) -> str:
  """Digest of the records, which may change behind their paths."""
  return hashlib.sha256(b"".join(Path(path).read_bytes() for path in (given.train, given.heldout))).hexdigest()[:16]


def take_data(
  folder: Path, *, seed: int, train: str, heldout: str, num_train: int, num_heldout: int, contents: str
) -> dict[str, Any]:
  """Takes a seed's training records by chance, and the same held-out ones for all seeds.

  Args:
    folder: of the job.
    seed: of the choice.
    train, heldout: files.
    num_train, num_heldout: records, or all where there are fewer.
    contents: of `contents`; seeds of other records are not put beside these.
  """
  del contents
  files = folder / "files"
  if jax.process_index() == 0:
    files.mkdir(exist_ok=True)
    (files / "train.jsonl").write_text(_some(train, num_train, seed))
    (files / "heldout.jsonl").write_text(_some(heldout, num_heldout, 0))
  processes.meet()
  return {}


def take_start(
  folder: Path, *, model: str, run: Mapping[str, Any], world: str, ask: Mapping[str, Any]
) -> dict[str, Any]:
  """Measures the model that is given.

  Args:
    folder: of the job.
    model: where it is.
    run, world, ask: as of `work.make_policy`.
  """
  if jax.process_index() == 0:
    (folder / PATH).write_text(model)
  processes.meet()
  return measure(folder, run, model, world, "", **ask)


def _some(path: str, count: int, seed: int) -> str:
  lines = _lines(path)
  chosen = random.Random(seed).sample(lines, min(count, len(lines)))
  return "".join(f"{line}\n" for line in chosen)


def _lines(path: str) -> list[str]:
  """Of JSON Lines: texts may hold other characters that end a line elsewhere."""
  return [line for line in Path(path).read_text(encoding="utf-8-sig").split("\n") if line.strip()]
