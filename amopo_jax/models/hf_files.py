"""What lies in a Hugging Face model directory: its JSON, and the headers of its safetensors files.

Nothing here reads a parameter. A header says the names, shapes and types of a file's tensors, and together
with the file's size it shows whether the file is whole.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils import epath
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

from amopo_jax.models.hf_weights import MappedWeights, RemoteWeights
from amopo_jax.types import SMALL_FILES, InputError

AnyPath = Path | epath.Path
"""Of a disk, or of an object store."""

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_DOWNLOAD_TIMEOUT_S = 10.0


View = Callable[[str], Any]
"""Name of a tensor -> the tensor, of which nothing is read until it is indexed."""

Views = Callable[[], AbstractContextManager[View]]
"""For as long as a part is read; then what was read may leave the memory."""


@dataclass(frozen=True, kw_only=True)
class TensorHeader:
  """What a safetensors file says of one of its tensors.

  Attributes:
    file: the file it is in.
    shape: shape in the file.
    dtype: type in the file, in the spelling of safetensors, such as "BF16".
  """

  file: AnyPath
  shape: tuple[int, ...]
  dtype: str


def resolve_model(path_or_hub_name: str | os.PathLike[str], *, with_weights: bool) -> epath.Path:
  """Finds the directory of a model, fetching a hub name into the Hugging Face cache (HF_HOME, HF_TOKEN).

  Args:
    path_or_hub_name: a directory, local or gs://, or ORGANISATION/NAME on the Hugging Face Hub.
    with_weights: fetch the safetensors files too, not only config and tokenizer.

  Returns:
    The directory.

  Raises:
    InputError: neither is there, or the Hub cannot be reached.
  """
  name = str(path_or_hub_name)
  if "://" in name:
    return _resolve_remote(name)
  directory = epath.Path(path_or_hub_name).expanduser()
  if directory.is_dir():
    return directory
  if directory.exists() or not _HUB_NAME.fullmatch(name):
    raise InputError(f"{name}: not a directory; give a model directory with {CONFIG}, or ORGANISATION/NAME of the Hub")
  patterns = SMALL_FILES + (["*.safetensors"] if with_weights else [])
  try:
    # Sub-directories hold the weights in other formats ("original/", "onnx/"), and so does "consolidated".
    found = snapshot_download(
      name,
      allow_patterns=patterns,
      ignore_patterns=["*/*", "consolidated*"],
      etag_timeout=_DOWNLOAD_TIMEOUT_S,
    )
  except (OSError, HFValidationError) as error:
    raise InputError(
      f"{name}: no such directory, and not to be had from the Hugging Face Hub ({_reason(error)}); "
      f"give a directory, or fetch it where there is a network with `hf download {name}`"
    ) from error
  return epath.Path(found)


def _resolve_remote(name: str) -> epath.Path:
  remedy = f"give one with {CONFIG}, and see that this machine may read it"
  try:
    directory = epath.Path(name)
    is_there = directory.is_dir()
  except Exception as error:  # whatever the store's client, its transport and its credentials raise
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    raise InputError(f"{name}: cannot be looked at ({reason}); {remedy}") from error
  if not is_there:
    raise InputError(f"{name}: no such directory; {remedy}")
  return directory


def read_json(file: AnyPath) -> dict[str, Any]:
  """Reads a JSON object; InputError if there is none."""
  try:
    content = json.loads(file.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise InputError(f"{file}: missing; this directory holds no model, give one that has a {file.name}") from error
  except ValueError as error:
    raise InputError(f"{file}: broken JSON ({error}); copy the file again") from error
  if not isinstance(content, dict):
    raise InputError(f"{file}: holds a {type(content).__name__}, not an object; copy the file again")
  return content


def read_headers(directory: AnyPath) -> dict[str, TensorHeader]:
  """Reads the headers of all weight files of a model directory.

  Args:
    directory: holds either `model.safetensors`, or `model.safetensors.index.json` and the files it names.

  Returns:
    The tensors by name.

  Raises:
    InputError: no such file; a shard that is missing, truncated or corrupt, or lacks a tensor of the index.
  """
  if (directory / SINGLE).exists():
    return _read_header(directory / SINGLE)
  if not (directory / INDEX).exists():
    raise InputError(
      f"{directory}: neither {SINGLE} nor {INDEX}; only safetensors are read, save it again with transformers"
    )
  shard_of = _read_index(directory / INDEX)
  found = {shard: _read_header(directory / shard) for shard in sorted(set(shard_of.values()))}
  for name, shard in shard_of.items():
    if name not in found[shard]:
      raise InputError(f"{directory / shard}: lacks tensor {name} of {INDEX}; fetch the file again")
  beside = {name: header for headers in found.values() for name, header in headers.items() if name not in shard_of}
  return beside | {name: found[shard][name] for name, shard in shard_of.items()}


def open_weights(file: AnyPath) -> MappedWeights | RemoteWeights:
  """Opens a safetensors file for reading slices as numpy arrays: mapped from a disk, by ranges from an object store.

  Raises:
    InputError: missing, truncated or corrupt.
  """
  try:
    return RemoteWeights(epath.Path(file)) if "://" in str(file) else MappedWeights(Path(file))
  except FileNotFoundError as error:
    raise InputError(f"{file}: missing; fetch the file again") from error
  except (OSError, ValueError) as error:
    raise InputError(f"{file}: truncated or corrupt ({error}); fetch the file again") from error


def open_views(headers: dict[str, TensorHeader], stack: ExitStack) -> Views:
  """Opens each file when it is first needed, until the stack ends."""
  opened: dict[AnyPath, MappedWeights | RemoteWeights] = {}

  def view(name: str) -> Any:
    file = headers[name].file
    if file not in opened:
      opened[file] = stack.enter_context(closing(open_weights(file)))
    return opened[file].get_slice(name)

  @contextmanager
  def views() -> Iterator[View]:
    yield view
    for weights in opened.values():
      weights.forget()

  return views


def _read_header(file: AnyPath) -> dict[str, TensorHeader]:
  """The tensors of one file."""
  with closing(open_weights(file)) as weights:
    return {
      name: TensorHeader(file=file, shape=tuple(entry["shape"]), dtype=entry["dtype"])
      for name, entry in weights.header.items()
    }


def _read_index(file: AnyPath) -> dict[str, str]:
  """The file of each tensor, by its bare name: an index cannot reach outside its directory."""
  content = read_json(file)
  shard_of = content.get("weight_map")
  if not isinstance(shard_of, dict) or not all(Path(str(shard)).name == shard for shard in shard_of.values()):
    raise InputError(f"{file}: weight_map does not give a file of this directory for each tensor; fetch the file again")
  return shard_of


def _reason(error: Exception) -> str:
  """Why the Hub did not deliver, in a few words."""
  if constants.HF_HUB_OFFLINE:
    return "HF_HUB_OFFLINE is set and it is not in the cache"
  if isinstance(error, GatedRepoError):
    return "gated: accept its licence there and set HF_TOKEN"
  if isinstance(error, RepositoryNotFoundError):
    return "unknown or private; for a private one set HF_TOKEN"
  return " ".join(str(error).split())[:160]
