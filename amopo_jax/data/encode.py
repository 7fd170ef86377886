"""From a pair of texts to tokens: K prompts, two responses, and what gives way when they are too long.

A response is tokenised once and shared by all contexts. What is cut is cut for all contexts alike, so that the
prompts keep what they have in common.
"""

import dataclasses
from collections.abc import Sequence

from amopo_jax.data.contexts import ContextSpec, order, render, wanted
from amopo_jax.data.encoded import Dropped, EncodedPair
from amopo_jax.data.records import Message, Pair
from amopo_jax.data.tokenizer import TokenIds, Tokenizer
from amopo_jax.types import InputError

POLICIES = ("cut", "drop", "error")
"""What to do with a pair that is too long."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """How long a sequence may be.

  Attributes:
    max_length: tokens of one prompt and one response together, at most the row length.
    max_response: tokens of the response that are safe from a long prompt; below max_length. A longer response is
      cut only as far as the prompt needs the room.
    too_long: one of POLICIES: cut the pair, drop it, or stop with an error.

  Raises:
    InputError: a limit out of range, an unknown policy.
  """

  max_length: int
  max_response: int
  too_long: str

  def __post_init__(self):
    if not 0 < self.max_response < self.max_length:
      raise InputError(
        f"limits: max_response is {self.max_response}; it must be above 0 and below max_length {self.max_length}"
      )
    if self.too_long not in POLICIES:
      raise InputError(f"limits: unknown policy '{self.too_long}'; choose one of {', '.join(POLICIES)}")


def encode_pair(
  pair: Pair, contexts: ContextSpec, tokenizer: Tokenizer, limits: Limits, *, index: int = -1
) -> EncodedPair | Dropped:
  """Tokenises a pair in every context.

  Where the sequence would exceed `max_length`, "cut" gives up, in this order: the oldest turns of the history; the
  beginning of the last question; and of a response longer than `max_response` its end. The system message, the
  instruction, the question's end and the response's start survive.

  Args:
    pair: the texts and scores.
    contexts: the K contexts.
    tokenizer: with a chat template.
    limits: how long a sequence may be and what happens otherwise.
    index: number of the pair in its data set.

  Returns:
    The tokens, or `Dropped` under the policy "drop".

  Raises:
    InputError: a missing score, a dialogue the chat template refuses, a pair that is too long under "error", or
      that even cutting does not make fit.
  """
  is_ordered, score_gap = order(pair, contexts)
  prompts = _encode_prompts(pair.prompt, pair, contexts, tokenizer)
  responses = tokenizer.encode_responses(_response_texts(pair, tokenizer))
  num_cut, num_tokens = 0, _longest(prompts) + _longest(responses)
  if num_tokens > limits.max_length:
    if limits.too_long != "cut":
      return _refuse(pair, num_tokens, limits)
    before = _longest(prompts) + sum(map(len, responses[:2]))
    prompt_room = limits.max_length - min(_longest(responses), limits.max_response)
    prompts = _cut_prompts(prompts, pair, contexts, tokenizer, room=prompt_room)
    room = limits.max_length - _longest(prompts)
    responses = [response[:room] for response in responses]
    num_cut = before - _longest(prompts) - sum(map(len, responses[:2]))
  chosen, rejected, *others = responses
  told = {"others": tuple(others), "wanted": wanted(pair, contexts)}
  return EncodedPair(prompts, (chosen, rejected), is_ordered, score_gap, index, num_cut, pair.origin, **told)


def fits_by_bytes(pair: Pair, contexts: ContextSpec, tokenizer: Tokenizer, max_length: int) -> bool:
  """Whether the pair's sequences surely are short enough, without tokenising it: a token stands for at least one byte.

  Args:
    pair: the texts.
    contexts: the K contexts.
    tokenizer: with a chat template.
    max_length: tokens of one prompt and one response together.

  Returns:
    True if it cannot be too long; False if one has to look.
  """
  prompt = max(map(tokenizer.most_tokens, _prompt_texts(pair.prompt, pair, contexts, tokenizer)))
  response = max(map(tokenizer.most_tokens, _response_texts(pair, tokenizer))) + len(tokenizer.end)
  return prompt + response + _PREFIX_TOKENS <= max_length


_PREFIX_TOKENS = 4
"""SentencePiece vocabularies begin a text with a token of their own; generously bounded."""


def _encode_prompts(
  prompt: tuple[Message, ...], pair: Pair, contexts: ContextSpec, tokenizer: Tokenizer
) -> tuple[TokenIds, ...]:
  return tuple(tokenizer.encode(_prompt_texts(prompt, pair, contexts, tokenizer)))


def _response_texts(pair: Pair, tokenizer: Tokenizer) -> list[str]:
  try:
    return [tokenizer.response_text(response.content) for response in (pair.chosen, pair.rejected, *pair.others)]
  except InputError as error:
    raise InputError(f"{pair.origin}: {error}") from None


def _prompt_texts(prompt: tuple[Message, ...], pair: Pair, contexts: ContextSpec, tokenizer: Tokenizer) -> list[str]:
  rendered = [render(prompt, pair, context, contexts.place) for context in contexts.contexts]
  try:
    return [tokenizer.prompt_text(messages) for messages in rendered]
  except InputError as error:
    raise InputError(f"{pair.origin}: {error}") from None


def _cut_prompts(
  prompts: tuple[TokenIds, ...], pair: Pair, contexts: ContextSpec, tokenizer: Tokenizer, *, room: int
) -> tuple[TokenIds, ...]:
  prompt = pair.prompt
  while _longest(prompts) > room and (shorter := _without_oldest_turn(prompt)) != prompt:
    prompt, prompts = shorter, _encode_prompts(shorter, pair, contexts, tokenizer)
  *history, question = prompt
  count = 0
  while _longest(prompts) > room:
    count += _longest(prompts) - room
    rest = tokenizer.without_start(question.content, count)
    if not rest.strip():
      raise InputError(
        f"{pair.origin}: prompt longer than the row: its instruction and system message leave the question no room "
        f"in {room} tokens; shorten them or raise max_length"
      )
    cut = (*history, Message(question.role, rest))
    prompts = _encode_prompts(cut, pair, contexts, tokenizer)
  return prompts


def _without_oldest_turn(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
  """Drops the oldest user message and the answers to it, so that the history still begins with the user."""
  system = prompt[:1] if prompt[0].role == "system" else ()
  history = prompt[len(system) :]
  for place in range(1, len(history)):
    if history[place].role == "user":
      return (*system, *history[place:])
  return prompt


def _refuse(pair: Pair, num_tokens: int, limits: Limits) -> Dropped:
  reason = f"{num_tokens} tokens, max_length is {limits.max_length}"
  if limits.too_long == "drop":
    return Dropped(pair.origin, reason)
  raise InputError(f"{pair.origin}: prompt longer than the row: {reason}; raise it, or set too_long to cut or drop")


def _longest(sequences: Sequence[TokenIds]) -> int:
  return max(map(len, sequences))
