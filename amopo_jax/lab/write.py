"""The world as files: records, tokenizer and summary in one directory, complete or not there at all."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amopo_jax.lab.spec import DEFAULT_SPEC, WorldSpec
from amopo_jax.lab.summary import summarise
from amopo_jax.lab.tokenizer import make_tokenizer, vocabulary
from amopo_jax.lab.world import SPLITS, make_records
from amopo_jax.types import InputError

SUMMARY = "summary.json"
"""Name of the file that says what a directory holds."""


def write_world(
  out_dir: str | os.PathLike[str],
  *,
  seed: int,
  num_train: int,
  num_heldout: int,
  spec: WorldSpec = DEFAULT_SPEC,
) -> dict[str, Any]:
  """Writes train.jsonl, heldout.jsonl, tokenizer/ and summary.json.

  The files are a function of the arguments. A directory that holds them already is left as it is. The supervised
  start of a policy takes the chosen responses of the same records.

  Args:
    out_dir: local directory, made if missing.
    seed: names the world.
    num_train: records to train on, at least 1.
    num_heldout: records on other questions, at least 1.
    spec: shares of the difficulties.

  Returns:
    What summary.json holds: "world" (the arguments), "vocabulary" (size and sha256) and, for each split, the
    sha256 of its file beside what `summarise` tells.

  Raises:
    InputError: no records asked for, or out_dir holds something else.
  """
  counts = dict(zip(SPLITS, (num_train, num_heldout), strict=True))
  if min(counts.values()) < 1:
    raise InputError(f"world: {num_train} training and {num_heldout} held-out records; ask for 1 or more of each")
  target, texts, words = Path(out_dir), {}, vocabulary(spec)
  summary = {
    "world": {"seed": seed, "spec": dataclasses.asdict(spec)},
    "vocabulary": {"size": len(words), "sha256": _sha256(json.dumps(words))},
  }
  for split, count in counts.items():
    records = list(make_records(spec, seed, split, count))
    texts[f"{split}.jsonl"] = "".join(json.dumps(record) + "\n" for record in records)
    summary[split] = {"sha256": _sha256(texts[f"{split}.jsonl"])} | summarise(records)
  texts[SUMMARY] = json.dumps(summary, indent=2) + "\n"
  if not _holds(target, texts[SUMMARY]):
    _write(target, texts, spec)
  return summary


def _holds(target: Path, summary: str) -> bool:
  """Whether the directory has been written with this very summary; False if there is nothing in it yet."""
  if not target.exists() or (target.is_dir() and not any(target.iterdir())):
    return False
  file = target / SUMMARY
  if not file.is_file() or file.read_text(encoding="utf-8") != summary:
    raise InputError(f"{target}: holds another world or other files; choose another directory or delete this one")
  return True


def _write(target: Path, texts: Mapping[str, str], spec: WorldSpec):
  """Writes beside the target and renames, so that an interrupted run leaves nothing that looks finished."""
  target = target.resolve()  # "." has no name
  unfinished = target.with_name(target.name + ".unfinished")
  if unfinished.exists():
    shutil.rmtree(unfinished)
  unfinished.mkdir(parents=True)
  for name, text in texts.items():
    (unfinished / name).write_text(text, encoding="utf-8")
  make_tokenizer(spec).save_pretrained(str(unfinished / "tokenizer"))
  unfinished.replace(target)


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()
