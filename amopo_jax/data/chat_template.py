"""The chat template of a tokenizer: where it puts the assistant's text, and what it does to it.

Where the boundary between prompt and response lies is asked of the template itself: it renders a placeholder in the
assistant's place; what precedes the placeholder is the prompt (with Qwen3's empty think block, where the template has
one), what follows it ends the turn.
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from amopo_jax.data.records import Message
from amopo_jax.types import InputError

FIXED_VARIABLES = ("messages", "add_generation_prompt", "tokenize")
"""What a chat template is called with here, whatever the user wants."""

_PLACEHOLDER = "@@response@@"
_MARGIN = "\n "
"""White space put around the placeholder to see whether the template strips it."""

_REASONING_ENDS = "</think>"
_ASKS_FOR_DATE = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
_TODAY = datetime.datetime(2024, 7, 26)
"""For templates that ask for the date, the one that Llama 3's has where it cannot: a run must not change overnight."""


class ChatTemplate:
  """A tokenizer's chat template.

  Attributes:
    tail: what it writes behind the assistant's text.
  """

  def __init__(self, tokenizer: Any, name: str, variables: Mapping[str, Any]):
    self._tokenizer, self._name, self._variables = tokenizer, name, dict(variables)
    self._text = _ASKS_FOR_DATE.sub(lambda found: repr(_TODAY.strftime(found[2])), tokenizer.chat_template)
    if "strftime_now(" in self._text:
      raise InputError(
        f"tokenizer {name}: its chat template asks for the date in a way that is not known; write it out"
      )
    head, self.tail = self._around("")
    self._left, self._right = self._probe_strip(head)
    self._moves_reasoning = self._around(f"<think>a{_REASONING_ENDS}")[0] != f"{head}<think>a{_REASONING_ENDS}"

  def prompt(self, messages: Sequence[Message]) -> str:
    """The dialogue as the template writes it, up to where the assistant's text begins.

    Args:
      messages: the prompt, its last message the user's.

    Returns:
      Text; special tokens are spelled out in it.

    Raises:
      InputError: the template refuses the dialogue, e.g. because it knows no system role, or leaves the system
        message out.
    """
    text = self._render(messages, _PLACEHOLDER).rpartition(_PLACEHOLDER)[0]
    if messages[0].role == "system" and messages[0].content.strip() not in text:
      raise InputError(
        f"chat template of {self._name}: leaves the system message out; put what it says into the question "
        "(config.data.place), or change the template"
      )
    return text

  def response(self, content: str) -> str:
    """An answer without the white space that the template would strip.

    Args:
      content: of the assistant.

    Returns:
      The text that stands behind the prompt.

    Raises:
      InputError: the answer holds reasoning, which the template would put elsewhere.
    """
    if self._moves_reasoning and _REASONING_ENDS in content:
      raise InputError(
        f"chat template of {self._name}: takes the reasoning before {_REASONING_ENDS} out of a response; "
        "leave it out of the data, or change the template"
      )
    return content.lstrip(self._left).rstrip(self._right)

  def _render(self, messages: Sequence[Message], response: str) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    turns.append({"role": "assistant", "content": response})
    try:
      return self._tokenizer.apply_chat_template(turns, chat_template=self._text, tokenize=False, **self._variables)
    except jinja2.TemplateError as error:
      raise InputError(f"chat template of {self._name}: {error}; change the dialogue or the template") from None

  def _around(self, before: str, after: str = "") -> tuple[str, str]:
    """What is written before and behind the placeholder, which has some text on both sides."""
    text = self._render([Message("user", "?")], before + _PLACEHOLDER + after)
    head, found, tail = text.rpartition(_PLACEHOLDER)
    if not found or not head:
      raise InputError(
        f"tokenizer {self._name}: its chat template does not write the assistant's text; fix the template"
      )
    return head, tail

  def _probe_strip(self, head: str) -> tuple[str | None, str | None]:
    """What the template strips off both ends of a response, as arguments of str.lstrip and str.rstrip."""
    before, after = self._around(_MARGIN, _MARGIN[::-1])
    left, right = before.removeprefix(head), after.removesuffix(self.tail)
    return _stripped(left, _MARGIN), _stripped(right, _MARGIN[::-1])


def _stripped(kept: str, margin: str) -> str | None:
  """Argument for str.lstrip/rstrip that strips what the template stripped of the margin; None strips everything."""
  return "".join(set(margin) - set(kept)) if kept else None
