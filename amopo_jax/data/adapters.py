"""Record formats by name: each adapter turns the raw rows of one record into a `Record`.

To add a format, write a function `(rows, origin) -> Record` and enter it in ADAPTERS; fields.py puts the
place into its errors. docs/data.md shows a row of every format.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

from amopo_jax.data.fields import (
  Row,
  as_list,
  as_message,
  as_object,
  as_prompt,
  as_score,
  as_scores,
  as_text,
  field,
  refuse_others,
)
from amopo_jax.data.records import Message, Record, Response
from amopo_jax.types import InputError

OVERALL = "overall"
"""Dimension of a score that has no name in its format (`score_chosen`)."""

ULTRAFEEDBACK_ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
"""Dimensions of UltraFeedback, each rated 1 to 5."""


@dataclasses.dataclass(frozen=True)
class Adapter:
  """One record format.

  Attributes:
    parse: (rows of one record, origin of the first) -> Record.
    rows_per_record: consecutive raw rows that make a record.
  """

  parse: Callable[[Sequence[Row], str], Record]
  rows_per_record: int = 1


def native(rows: Sequence[Row], origin: str) -> Record:
  """`{"prompt": text | messages, "responses": [{"content", "scores"}, …], "chosen": 0}`: our own format."""
  (row,) = rows
  refuse_others(row, ("prompt", "responses", "chosen", "wanted", "id", "metadata"), "the row", origin)
  chosen = row.get("chosen")
  if chosen is not None and (isinstance(chosen, bool) or not isinstance(chosen, int)):
    raise InputError(f"{origin}: 'chosen' is {chosen!r}; it must be the number of a response, from 0, or null")
  responses = as_list(field(row, "responses", origin), "'responses'", origin)
  prompt = field(row, "prompt", origin)
  for message in prompt if isinstance(prompt, list) else ():
    refuse_others(as_object(message, "a message", origin), ("role", "content"), "a message", origin)
  return Record(
    as_prompt(prompt, origin),
    tuple(_native_response(response, origin) for response in responses),
    chosen,
    origin,
    as_scores(row["wanted"], origin) if row.get("wanted") is not None else {},
  )


def _native_response(value: object, origin: str) -> Response:
  response = as_object(value, "a response", origin)
  refuse_others(response, ("content", "scores"), "a response", origin)
  scores = as_scores(response["scores"], origin) if "scores" in response else {}
  return Response(as_text(field(response, "content", origin), "the content of a response", origin), scores)


def amopo(rows: Sequence[Row], origin: str) -> Record:
  """`{"prompt": text, "chosen": {"response", dimension: "4", …}, "rejected": {…}}`, as released."""
  (row,) = rows
  chosen, rejected = (
    _scored_response(as_object(field(row, member, origin), f"'{member}'", origin), origin)
    for member in ("chosen", "rejected")
  )
  return Record(_helpsteer_prompt(row, origin), (chosen, rejected), 0, origin)


def helpsteer2(rows: Sequence[Row], origin: str) -> Record:
  """Two consecutive rows `{"prompt", "response", dimension: 4, …}` with the same prompt, none chosen."""
  first, second = rows
  if field(first, "prompt", origin) != field(second, "prompt", origin):
    raise InputError(f"{origin}: this row and the next differ in 'prompt'; a record is two rows of one prompt")
  return Record(
    _helpsteer_prompt(first, origin),
    (_scored_response(first, origin), _scored_response(second, f"{origin} (second row)")),
    None,
    origin,
  )


def _scored_response(row: Row, origin: str) -> Response:
  scores = {name: as_score(row[name], name, origin) for name in row if name not in ("prompt", "response")}
  return Response(as_text(field(row, "response", origin), "'response'", origin), scores)


_TURN = re.compile(r"\n?<extra_id_1>(Assistant|User)\n")


def _helpsteer_prompt(row: Row, origin: str) -> tuple[Message, ...]:
  """`user\\n<extra_id_1>Assistant\\nanswer\\n<extra_id_1>User\\nuser …` as messages."""
  first, *rest = _TURN.split(as_text(field(row, "prompt", origin), "'prompt'", origin))
  later = zip(rest[::2], rest[1::2], strict=True)
  return (Message("user", first), *(Message(speaker.lower(), content) for speaker, content in later))


def ultrafeedback(rows: Sequence[Row], origin: str) -> Record:
  """`{"instruction", "completions": [{"response", "annotations": {aspect: {"Rating": "4"}}}]}`, as rated."""
  (row,) = rows
  completions = as_list(field(row, "completions", origin), "'completions'", origin)
  return Record(
    as_prompt(as_text(field(row, "instruction", origin), "'instruction'", origin), origin),
    tuple(_completion(as_object(completion, "a completion", origin), origin) for completion in completions),
    None,
    origin,
  )


def _completion(completion: Row, origin: str) -> Response:
  annotations = as_object(field(completion, "annotations", origin), "'annotations'", origin)
  scores = {}
  for aspect in ULTRAFEEDBACK_ASPECTS:
    annotation = as_object(field(annotations, aspect, origin), f"the annotation '{aspect}'", origin)
    scores[aspect] = as_score(field(annotation, "Rating", origin), aspect, origin)
  return Response(as_text(field(completion, "response", origin), "'response'", origin), scores)


def preference(rows: Sequence[Row], origin: str) -> Record:
  """`{"prompt", "chosen", "rejected"}` as texts or messages, as TRL has it.

  Without `prompt`, both dialogues must have the same messages before the response (the implicit prompt).
  Scores are optional: `score_chosen` and `score_rejected`, in the row or under `metadata`, each a number
  (dimension `overall`) or an object of dimensions.
  """
  (row,) = rows
  dialogues = [_dialogue(field(row, member, origin), member, origin) for member in ("chosen", "rejected")]
  prompts = [dialogue[:-1] for dialogue in dialogues if len(dialogue) > 1]
  if "prompt" in row:
    prompts.append(as_prompt(row["prompt"], origin))
  if any(prompt != prompts[0] for prompt in prompts):
    raise InputError(f"{origin}: the prompts in 'prompt', 'chosen' and 'rejected' differ; give one")
  if not prompts:
    raise InputError(f"{origin}: no prompt; give 'prompt', or messages that begin with it")
  responses = tuple(
    Response(dialogue[-1].content, _preference_scores(row, f"score_{member}", origin))
    for dialogue, member in zip(dialogues, ("chosen", "rejected"), strict=True)
  )
  return Record(prompts[0], responses, 0, origin)


def _dialogue(value: object, member: str, origin: str) -> tuple[Message, ...]:
  if isinstance(value, str):
    return (Message("assistant", as_text(value, f"'{member}'", origin)),)
  messages = value if isinstance(value, list) else [value]
  dialogue = tuple(as_message(message, origin) for message in messages)
  if not dialogue or dialogue[-1].role != "assistant":
    raise InputError(f"{origin}: '{member}' does not end with a message of the assistant, the response")
  return dialogue


def _preference_scores(row: Row, name: str, origin: str) -> dict[str, float]:
  metadata = row.get("metadata")
  for holder in (row, metadata if isinstance(metadata, dict) else {}):
    if name in holder:
      score = holder[name]
      return as_scores(score, origin) if isinstance(score, dict) else {OVERALL: as_score(score, OVERALL, origin)}
  return {}


_SHAREGPT_ROLES = {
  "system": "system",
  "human": "user",
  "user": "user",
  "gpt": "assistant",
  "assistant": "assistant",
}


def sharegpt(rows: Sequence[Row], origin: str) -> Record:
  """`{"conversations": [{"from": "human", "value"}], "chosen": {"from": "gpt", "value"}, …}`.

  A `system` field, if there is one, is the system message. Scores as in `preference`.
  """
  (row,) = rows
  turns = as_list(field(row, "conversations", origin), "'conversations'", origin)
  prompt = tuple(_sharegpt_message(turn, origin) for turn in turns)
  if row.get("system"):
    prompt = (Message("system", as_text(row["system"], "'system'", origin)), *prompt)
  responses = []
  for member in ("chosen", "rejected"):
    message = _sharegpt_message(field(row, member, origin), origin)
    if message.role != "assistant":
      raise InputError(f"{origin}: '{member}' is from the {message.role}; a response must be from 'gpt'")
    responses.append(Response(message.content, _preference_scores(row, f"score_{member}", origin)))
  return Record(prompt, tuple(responses), 0, origin)


def _sharegpt_message(value: object, origin: str) -> Message:
  turn = as_object(value, "a turn", origin)
  role = as_text(field(turn, "from", origin), "'from'", origin)
  if role not in _SHAREGPT_ROLES:
    raise InputError(f"{origin}: unknown role '{role}'; the roles are {', '.join(_SHAREGPT_ROLES)}")
  return Message(_SHAREGPT_ROLES[role], as_text(field(turn, "value", origin), "'value'", origin))


ADAPTERS: dict[str, Adapter] = {
  "native": Adapter(native),
  "amopo": Adapter(amopo),
  "helpsteer2": Adapter(helpsteer2, rows_per_record=2),
  "ultrafeedback": Adapter(ultrafeedback),
  "preference": Adapter(preference),
  "sharegpt": Adapter(sharegpt),
}
"""The formats by their configuration names."""
