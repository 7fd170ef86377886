"""From what the user names to local files: paths, globs, hub names, gs:// and hf:// addresses, gzip.

Remote files are copied once, compressed files are unpacked once; both go below the cache folder, which
follows HF_HOME. The name of the original goes along for the messages.
"""

import glob
import gzip
import hashlib
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import fsspec
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError

from amopo_jax.types import InputError


class LocalFile(NamedTuple):
  """A readable file and how messages call it."""

  path: Path
  name: str


class HubSet(NamedTuple):
  """A data set of the Hugging Face hub known by its name: its record format, and its files by split."""

  format: str
  splits: dict[str, tuple[str, ...]]


_ULTRAFEEDBACK = ("evol_instruct", "false_qa", "flan", "sharegpt", "truthful_qa", "ultrachat")

HUB_SETS: dict[str, HubSet] = {
  "nvidia/HelpSteer2": HubSet("helpsteer2", {"train": ("train.jsonl.gz",), "validation": ("validation.jsonl.gz",)}),
  "openbmb/UltraFeedback": HubSet("ultrafeedback", {"train": tuple(f"{part}.jsonl" for part in _ULTRAFEEDBACK)}),
}
"""The known hub names; `NAME` means `NAME:train`."""

_UNREAD = (".parquet", ".csv", ".tsv", ".arrow", ".xlsx")


def hub_set(path: str) -> HubSet | None:
  """The known hub data set that a path names, if it does."""
  return HUB_SETS.get(path.partition(":")[0])


def local_files(path: str, cache_dir: Path | None = None) -> list[LocalFile]:
  """The local files behind a path, copied and unpacked where needed.

  Args:
    path: one or more, separated by commas, of: a file or glob; a known hub name (HUB_SETS), with `:SPLIT` for
      another split than train; `hf://datasets/ORG/NAME[@REVISION]/FILE`; `gs://BUCKET/FILE` or glob.
    cache_dir: where copies go; `amopo_jax` below HF_HOME if None.

  Returns:
    The files, in the order given; the files of a glob sorted by name.

  Raises:
    InputError: a file that is missing, unreachable or of a kind that is not read.
  """
  cache = cache_dir or Path(constants.HF_HOME) / "amopo_jax"
  files = [file for part in path.split(",") for file in _resolve(part.strip(), cache)]
  return [_unpacked(file, cache) if file.name.endswith(".gz") else file for file in files]


def _resolve(path: str, cache: Path) -> list[LocalFile]:
  if path.removesuffix(".gz").endswith(_UNREAD):
    raise InputError(f"{path}: this kind of file is not read; convert it to JSON Lines (.jsonl)")
  if hub_set(path):
    return [_from_hub(address) for address in _hub_addresses(path)]
  if path.startswith("hf://"):
    return [_from_hub(path)]
  if "://" in path:
    return _from_remote(path, cache)
  return _from_disk(path)


def _from_disk(path: str) -> list[LocalFile]:
  expanded = os.path.expanduser(path)
  names = [expanded] if os.path.isfile(expanded) else sorted(filter(os.path.isfile, glob.glob(expanded)))
  if not names:
    kind = "a folder, not a file" if os.path.isdir(expanded) else "no such file"
    raise InputError(
      f"{path}: {kind}; give a .jsonl or .json file, hf://datasets/ORG/NAME/FILE, gs://…, tfds:NAME, "
      f"or one of the hub names {', '.join(HUB_SETS)}"
    )
  return [LocalFile(Path(name), name) for name in names]


def _hub_addresses(path: str) -> list[str]:
  name, _, split = path.partition(":")
  splits = HUB_SETS[name].splits
  if (split or "train") not in splits:
    raise InputError(f"{path}: no split '{split}'; the splits are {', '.join(splits)}")
  return [f"hf://datasets/{name}/{file}" for file in splits[split or "train"]]


def _from_hub(address: str) -> LocalFile:
  parts = address.removeprefix("hf://").split("/", maxsplit=3)
  if len(parts) < 4 or parts[0] != "datasets":
    raise InputError(f"{address}: not an address of a data file; write hf://datasets/ORG/NAME/FILE")
  _, organisation, name, file = parts
  name, _, revision = name.partition("@")
  try:
    path = huggingface_hub.hf_hub_download(
      f"{organisation}/{name}", file, repo_type="dataset", revision=revision or None
    )
  except (OSError, HFValidationError) as error:
    raise InputError(
      f"{address}: not in the local cache, and the hub does not give it ({type(error).__name__}); "
      "check the name and the network, or give a local file"
    ) from None
  return LocalFile(Path(path), address)


def _from_remote(address: str, cache: Path) -> list[LocalFile]:
  if address.startswith(("http://", "https://")):
    raise InputError(f"{address}: web addresses are not read; download the file, or use hf:// or gs://")
  try:
    system, pattern = fsspec.core.url_to_fs(address)
    names = sorted(system.glob(pattern)) if glob.has_magic(pattern) else [pattern]
    copies = [_copied(system, name, cache) for name in names]
  except (OSError, ImportError, ValueError) as error:
    raise InputError(f"{address}: cannot be read ({_first_line(error)}); check the address and the network") from None
  if not copies:
    raise InputError(f"{address}: no file matches; check the pattern")
  return copies


def _copied(system: fsspec.AbstractFileSystem, name: str, cache: Path) -> LocalFile:
  address = system.unstrip_protocol(name)
  target = _cache_path(cache, address, f"{system.info(name)['size']} {system.ukey(name)}")
  return _made_once(LocalFile(target, address), lambda path: system.get_file(name, str(path)))


def _unpacked(file: LocalFile, cache: Path) -> LocalFile:
  stat = file.path.stat()
  target = _cache_path(cache, file.name.removesuffix(".gz"), f"{file.path} {stat.st_size} {stat.st_mtime_ns}")

  def unpack(path: Path):
    with gzip.open(file.path) as packed, open(path, "wb") as unpacked:
      shutil.copyfileobj(packed, unpacked)

  try:
    return _made_once(LocalFile(target, file.name), unpack)
  except (gzip.BadGzipFile, EOFError, zlib.error) as error:
    raise InputError(f"{file.name}: broken gzip file ({error}); fetch it again") from None


def _cache_path(cache: Path, name: str, version: str) -> Path:
  """A path below the cache that changes when the original does."""
  return cache / hashlib.sha256(f"{name} {version}".encode()).hexdigest()[:16] / Path(name).name


def _made_once(file: LocalFile, make: Callable[[Path], None]) -> LocalFile:
  """Makes a file beside its place and renames it, so that whoever finds it finds it whole."""
  if not file.path.exists():
    file.path.parent.mkdir(parents=True, exist_ok=True)
    partial = file.path.with_name(f"{file.path.name}.{os.getpid()}.partial")
    try:
      make(partial)
      partial.replace(file.path)
    finally:
      partial.unlink(missing_ok=True)
  return file


def _first_line(error: Exception) -> str:
  return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
