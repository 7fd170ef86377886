"""The tokenizer as this system needs it: where a response begins and ends, and a name for its vocabulary.

Prompt and response are tokenised apart, so that no token spans the boundary, which the chat template sets
(`chat_template.py`).
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from jaxtyping import Int32

from amopo_jax.data.chat_template import FIXED_VARIABLES, ChatTemplate
from amopo_jax.data.records import Message
from amopo_jax.types import SMALL_FILES, InputError

_HUB_SECONDS = 10.0
"""That the Hugging Face Hub has to answer."""

_SPACE = "\u2581"
"""As SentencePiece writes it."""

TokenIds = Int32[np.ndarray, "_"]
"""Tokens of one text; no two need be equally long."""


class Tokenizer:
  """A Hugging Face tokenizer with a chat template.

  No token is added that the template does not write (so no second BOS), and nothing is masked by token id (so a
  padding token equal to the end of turn does no harm).

  Attributes:
    name: directory or hub name it was loaded from.
    end: tokens that end an assistant's turn, the end-of-turn token last.
  """

  def __init__(
    self, tokenizer: transformers.PreTrainedTokenizerBase, name: str, template_kwargs: Mapping[str, Any] | None = None
  ):
    self.name = name
    self._tokenizer: Any = tokenizer  # the types of its results depend on its arguments
    self._backend.no_truncation()
    self._backend.no_padding()
    self._template = ChatTemplate(tokenizer, name, template_kwargs or {})
    self.end = self._end_of_turn(self._template.tail)
    pieces = tokenizer.convert_ids_to_tokens(self.encode(["x"])[0].tolist())
    self._adds_space = "".join(pieces).startswith(_SPACE)  # in front of a text, as SentencePiece does

  @functools.cached_property
  def vocab_size(self) -> int:
    """Highest token id + 1: the least number of rows an embedding needs."""
    return max(self._tokenizer.get_vocab().values()) + 1

  @functools.cached_property
  def fingerprint(self) -> str:
    """sha256 over vocabulary, merges, normalisation, special tokens and chat template."""
    pieces = json.loads(self._backend.to_str())
    pieces = {name: piece for name, piece in pieces.items() if name not in ("version", "truncation", "padding")}
    pieces["special_tokens"] = {name: str(token) for name, token in self._tokenizer.special_tokens_map.items()}
    pieces["chat_template"] = self._tokenizer.chat_template
    return hashlib.sha256(json.dumps(pieces, sort_keys=True).encode()).hexdigest()

  def prompt_text(self, messages: Sequence[Message]) -> str:
    """The dialogue as the chat template writes it, up to where the assistant's text begins.

    Args:
      messages: the prompt, its last message the user's.

    Returns:
      Text; special tokens are spelled out in it. Without the last space where each response begins with one anyway.

    Raises:
      InputError: see `ChatTemplate.prompt`.
    """
    text = self._template.prompt(messages)
    return text.removesuffix(" ") if self._adds_space else text

  def encode(self, texts: Sequence[str]) -> list[TokenIds]:
    """Tokens of each text, nothing added.

    Args:
      texts: any; special tokens spelled out in them are recognised.

    Returns:
      One array per text.
    """
    encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.asarray(encoding.ids, np.int32) for encoding in encodings]

  def encode_responses(self, contents: Sequence[str]) -> list[TokenIds]:
    """Tokens of responses, each with its end of turn; white space goes where the template would strip it.

    Args:
      contents: texts of the responses.

    Returns:
      One array per text, `end` included.

    Raises:
      InputError: see `ChatTemplate.response`.
    """
    texts = [self.response_text(content) for content in contents]
    return [np.concatenate([ids, self.end]) for ids in self.encode(texts)]

  def response_text(self, content: str) -> str:
    """What is tokenised of a response; InputError: see `ChatTemplate.response`."""
    return self._template.response(content)

  def end_tokens(self, told: int | Sequence[int] | None) -> list[int]:
    """Where a policy stops: at the end of a turn, or, if it was not trained to end turns, of a text.

    Args:
      told: `eos_token_id` of its model's config.
    """
    others = [self._tokenizer.eos_token_id, *(told if isinstance(told, Sequence) else [told])]
    return list(dict.fromkeys([int(self.end[-1]), *(token for token in others if token is not None)]))

  def most_tokens(self, text: str) -> int:
    """How many tokens a text may have at most: one per byte of its normal form, which may be longer than the text."""
    normalizer = None if text.isascii() else self._backend.normalizer
    normal = normalizer.normalize_str(text) if normalizer else text
    return len(normal.encode())

  def without_start(self, text: str, count: int) -> str:
    """The text without its first `count` tokens, cut between characters.

    Args:
      text: any.
      count: tokens to take away, at least 0.

    Returns:
      The rest, "" if there are no more tokens than that.
    """
    offsets = self._backend.encode(text, add_special_tokens=False).offsets
    return text[offsets[count][0] :] if count < len(offsets) else ""

  def decode(self, ids: TokenIds) -> str:
    """Text of some tokens, special tokens spelled out.

    Args:
      ids: token ids.

    Returns:
      Text.
    """
    return self._tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)

  def save(self, directory: str | os.PathLike[str]) -> None:
    """Writes the files that `load_tokenizer` and `transformers` read.

    Args:
      directory: made if missing.

    Raises:
      OSError: it cannot be written.
    """
    try:
      self._tokenizer.save_pretrained(str(directory))
    except Exception as error:  # the tokenizers library raises a bare one for a full disk
      number = re.search(r"\(os error (\d+)\)", str(error))
      if number is None:
        raise
      raise OSError(int(number[1]), os.strerror(int(number[1])), str(directory)) from error

  @property
  def _backend(self) -> tokenizers.Tokenizer:
    return self._tokenizer.backend_tokenizer

  def _end_of_turn(self, tail: str) -> TokenIds:
    (ids,) = self.encode([tail])
    special = np.isin(ids, list(self._tokenizer.added_tokens_decoder))
    if special.any():
      return ids[: int(special.argmax()) + 1]
    if self._tokenizer.eos_token_id is None:
      raise InputError(f"tokenizer {self.name}: no end-of-turn token in its chat template and no eos_token; name one")
    return np.append(ids, np.int32(self._tokenizer.eos_token_id))


def load_tokenizer(name: str | os.PathLike[str], template_kwargs: Mapping[str, Any] | None = None) -> Tokenizer:
  """Loads a tokenizer from a directory or by hub name.

  Args:
    name: a directory with tokenizer files, or ORG/NAME on the Hugging Face hub (HF_HOME, HF_TOKEN are respected).
    template_kwargs: variables of the chat template, e.g. {"enable_thinking": False}.

  Returns:
    The tokenizer.

  Raises:
    InputError: nothing there, offline, not a fast tokenizer, no chat template, or one that has no such variable.
  """
  name = str(name)
  if name.count("/") != 1 and not os.path.isdir(name):  # neither a directory nor ORG/NAME
    raise InputError(f"tokenizer {name}: cannot be loaded (no such directory); give a directory or a hub name")
  # A directory's tokenizer.json is taken as it is: beside a config.json, transformers' AutoTokenizer replaces its
  # normaliser and splitting by those of the model's family, whatever the file says.
  folder = name if os.path.isdir(name) else _fetch(name)
  is_complete = os.path.isfile(os.path.join(folder, "tokenizer.json"))
  loader = transformers.PreTrainedTokenizerFast if is_complete else transformers.AutoTokenizer
  try:
    tokenizer = loader.from_pretrained(folder)
  except (OSError, ValueError) as error:
    reason = str(error).strip().split("\n")[0]
    raise InputError(
      f"tokenizer {name}: cannot be loaded ({reason}); give a tokenizer directory or a hub name"
    ) from None
  if not tokenizer.is_fast:
    raise InputError(f"tokenizer {name}: has no tokenizer.json form; convert it with `transformers` first")
  if not isinstance(tokenizer.chat_template, str):
    raise InputError(f"tokenizer {name}: has no chat template; add chat_template.jinja or take an instruct tokenizer")
  for key in template_kwargs or {}:
    if key in FIXED_VARIABLES or key not in tokenizer.chat_template:
      raise InputError(f"tokenizer {name}: template_kwargs: its chat template takes no '{key}'; leave that out")
  return Tokenizer(tokenizer, name, template_kwargs)


def _fetch(name: str) -> str:
  """Its folder in the Hugging Face cache; transformers itself would try for a minute where there is no network."""
  try:
    return snapshot_download(name, allow_patterns=SMALL_FILES, ignore_patterns=["*/*"], etag_timeout=_HUB_SECONDS)
  except (OSError, HFValidationError) as error:
    reason = " ".join(str(error).split())[:160]
    raise InputError(
      f"tokenizer {name}: cannot be loaded (no such directory here, nor on the Hugging Face Hub: {reason}); "
      "give a tokenizer directory or a hub name"
    ) from None


def is_read_alike(directory: str | os.PathLike[str]) -> bool:
  """Whether transformers' AutoTokenizer makes of a model directory the tokenizer that `load_tokenizer` does.

  Args:
    directory: with config.json and tokenizer files.

  Returns:
    False where it takes the class of the model's family instead of what tokenizer.json says.
  """
  theirs = Tokenizer(transformers.AutoTokenizer.from_pretrained(str(directory)), str(directory))
  return theirs.fingerprint == load_tokenizer(directory).fingerprint
