"""What an annotated example is once its file format no longer matters: prompt, responses, scores, origin.

A `Record` that exists is a valid one: the constructor checks it, so that no later stage has to. Every refusal
is one line that begins with the record's origin ("file:line").
"""

import dataclasses
import math
from collections.abc import Mapping

from amopo_jax.types import InputError

Number = float | int
"""A score, or an end of its range."""

ROLES = ("system", "user", "assistant")
"""Roles of a message, as chat templates spell them."""


@dataclasses.dataclass(frozen=True)
class Message:
  """One turn of a dialogue.

  Attributes:
    role: one of ROLES.
    content: text of the turn.
  """

  role: str
  content: str


@dataclasses.dataclass(frozen=True)
class Response:
  """One answer to a prompt, with what the annotators said of it.

  Attributes:
    content: text, not blank.
    scores: dimension -> score in the data set's own range; finite. Empty where nothing was scored.
  """

  content: str
  scores: Mapping[str, Number]


@dataclasses.dataclass(frozen=True)
class Record:
  """A raw example: one prompt and at least two responses to it.

  Attributes:
    prompt: the dialogue so far; a system message can only be the first, the last message is the user's.
    responses: two or more.
    chosen: index of the response the annotators preferred, None if they only scored.
    origin: where it came from, "file:line".
    wanted: dimension -> weight ≥ 0 of what this turn asks for, not all of them 0; empty: everything alike.

  Raises:
    InputError: if one of these statements does not hold.
  """

  prompt: tuple[Message, ...]
  responses: tuple[Response, ...]
  chosen: int | None
  origin: str
  wanted: Mapping[str, Number] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check_prompt(self.prompt, self.origin)
    if len(self.responses) < 2:
      raise InputError(f"{self.origin}: {len(self.responses)} response(s); a preference needs at least two")
    for number, response in enumerate(self.responses):
      _check_response(response, number, self.origin)
    if self.chosen is not None and not 0 <= self.chosen < len(self.responses):
      raise InputError(
        f"{self.origin}: chosen is {self.chosen}; the responses are numbered 0 to {len(self.responses) - 1}"
      )
    _check_wanted(self.wanted, self.origin)


@dataclasses.dataclass(frozen=True)
class Pair:
  """(y_w, y_l): two responses to one prompt of which the first is preferred.

  Attributes:
    prompt: as in `Record`.
    chosen: the preferred response y_w.
    rejected: the other one y_l.
    origin: of the record.
    others: further responses that must get the very same prompts, so that cuts leave room for them, too: where a
      record is scored, its responses lie in several pairs. None in training.
    wanted: as in `Record`.
  """

  prompt: tuple[Message, ...]
  chosen: Response
  rejected: Response
  origin: str
  others: tuple[Response, ...] = ()
  wanted: Mapping[str, Number] = dataclasses.field(default_factory=dict)


def score_in_range(response: Response, dimension: str, low: Number, high: Number, origin: str) -> float:
  """The response's score in one dimension, refused unless it is there and inside the declared range.

  Args:
    response: the scored response.
    dimension: name of the dimension.
    low: lowest score of the data set's range.
    high: highest score of the data set's range.
    origin: of the record, for the message.

  Returns:
    The score, in [low, high].

  Raises:
    InputError: missing score, or score out of range.
  """
  if dimension not in response.scores:
    known = ", ".join(response.scores) or "none"
    raise InputError(f"{origin}: no score for '{dimension}' (scored: {known}); add it or drop the context")
  score = response.scores[dimension]
  if not low <= score <= high:
    raise InputError(
      f"{origin}: '{dimension}' is {score:g}, outside the declared range {low:g} to {high:g}; "
      "correct the score or the context's low and high"
    )
  return float(score)


def check_prompt(prompt: tuple[Message, ...], origin: str) -> None:
  """Refuses a dialogue to which there is nothing to respond.

  Raises:
    InputError: empty, an unknown role, or it does not end with what the user said.
  """
  if not prompt:
    raise InputError(f"{origin}: no prompt; give a text or a list of messages")
  for place, message in enumerate(prompt):
    if message.role not in ROLES:
      raise InputError(f"{origin}: unknown role '{message.role}'; the roles are {', '.join(ROLES)}")
    if message.role == "system" and place > 0:
      raise InputError(f"{origin}: message {place} has the role 'system'; only the first message may")
  if prompt[-1].role != "user":
    raise InputError(f"{origin}: the prompt ends with role '{prompt[-1].role}'; its last message must be the user's")
  if not prompt[-1].content.strip():
    raise InputError(f"{origin}: the prompt's last message is empty; there is nothing to respond to")


def _check_wanted(wanted: Mapping[str, Number], origin: str):
  for dimension, weight in wanted.items():
    if not 0 <= weight < math.inf:
      raise InputError(f"{origin}: 'wanted' gives '{dimension}' the weight {weight}; give a finite one of at least 0")
  if wanted and not sum(wanted.values()) > 0:
    raise InputError(f"{origin}: 'wanted' gives every dimension the weight 0; leave it out to want everything alike")


def _check_response(response: Response, number: int, origin: str):
  if not response.content.strip():
    raise InputError(f"{origin}: response {number} is empty; remove the record or give it a text")
  for dimension, score in response.scores.items():
    if not math.isfinite(score):
      raise InputError(f"{origin}: '{dimension}' of response {number} is {score}; give a finite score or leave it out")
