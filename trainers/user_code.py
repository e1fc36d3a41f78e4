"""What comes from a user's code, checked where it crosses: exits that it raises, and values that it returns.

A task is checked once before its campaign starts, and code that did well then may return or raise anything later. What
goes wrong is the failure of that code alone: never the worker's, the driver's or the command's.
"""

from __future__ import annotations

import math
import numbers
import reprlib
import signal
import threading
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from types import FrameType
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

_MOST_CHARACTERS = 200
_LONGEST_FAILURE = 64 * 1024


class UserCodeError(Exception):
    """A user's code did what it must not; the message is a sentence that names class, method and what it did."""


class OperatorInterrupt(KeyboardInterrupt):
    """The operator pressed Ctrl-C while a user's code ran, which may itself raise KeyboardInterrupt."""


@contextmanager
def running_user_code() -> Iterator[None]:
    """Keep Ctrl-C apart from a KeyboardInterrupt that the code inside raises: only the first is OperatorInterrupt.

    Signal handlers belong to the main thread and to who set one; elsewhere this does nothing.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise OperatorInterrupt


def failure_text(error: BaseException) -> str:
    """Return what is recorded of a failure: the sentence of a `UserCodeError`, the traceback of anything else."""
    if isinstance(error, UserCodeError):
        return _cut(str(error))
    try:
        return _cut("".join(traceback.format_exception(error)))
    except BaseException:  # a chain of causes without end, or lines of source that cannot be read
        return told(error)


def _cut(text: str) -> str:
    """Return the head and the tail of a text too long to be sent to the driver; it cleans what it records."""
    if len(text) <= _LONGEST_FAILURE:
        return text
    half = _LONGEST_FAILURE // 2
    return f"{text[:half]}\n[... cut: the text had {len(text)} characters ...]\n{text[-half:]}"


def told(error: BaseException) -> str:
    """Return an exception in one line: its type and the first line of what it says."""
    try:
        first = str(error).strip().splitlines()[:1]
    except BaseException:  # its own __str__ raises, or exits
        first = []
    if isinstance(error, SystemExit):
        return f"SystemExit({first[0][:_MOST_CHARACTERS] if first else ''})"
    return f"{type(error).__name__}: {first[0][:_MOST_CHARACTERS]}" if first else type(error).__name__


def checked_metrics(metrics: object, *, source: str, promised: Collection[str], when: str = "") -> dict[str, float]:
    """Return a user's metrics as floats by name.

    Args:
        metrics: What the user's code returned.
        source: The class and method, as "Weird.evaluate".
        promised: The names that the task promises.
        when: When it was, as " at step 3"; empty before training.

    Raises:
        UserCodeError: It is no mapping, has other names, or a value is no real number.
    """
    if not isinstance(metrics, Mapping):
        raise UserCodeError(f"{source} gave {described(metrics)} instead of numbers by name{when}")
    found = dict(metrics.items())
    if set(found) != set(promised):
        names = reprlib.repr(sorted(map(str, found)))
        raise UserCodeError(f"{source} gives {names}{when}, while metrics promises {sorted(promised)}")
    plain = {name: str(name) for name in promised}  # a name of another type would be imported by the driver
    return {plain[name]: _number(value, f"{source} gave {{}} for {name}{when}") for name, value in found.items()}


def checked_number(number: object, *, source: str, when: str = "") -> float:
    """Return a user's number as a float.

    Raises:
        UserCodeError: It is no real number.
    """
    return _number(number, f"{source} gave {{}} instead of a number{when}")


def checked_loss(loss: object, *, source: str, when: str = "") -> Tensor:
    """Return a user's loss.

    Raises:
        UserCodeError: It is no scalar tensor of floating point.
    """
    if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
        raise UserCodeError(f"{source} must give a scalar, gave {described(loss)}{when}")
    return loss


def checked_batch(batch: object, *, source: str, when: str = "") -> tuple[Tensor, ...]:
    """Return a user's batch.

    Raises:
        UserCodeError: It is no tuple of tensors.
    """
    if not isinstance(batch, tuple) or not all(isinstance(part, Tensor) for part in batch):
        raise UserCodeError(f"{source} must give a tuple of tensors, gave {described(batch)}{when}")
    return batch


def described(value: object) -> str:
    """Return a value in a few words that are safe to print: a short one itself, of a large one its type and shape."""
    if value is None or isinstance(value, bool | int | float | complex | str):
        try:
            return reprlib.repr(value)
        except ValueError:  # an int too long to be written
            return f"a value of type {type(value).__name__}"
    if isinstance(value, Tensor | np.ndarray):
        return f"a {'tensor' if isinstance(value, Tensor) else 'NumPy array'} of shape {tuple(value.shape)}"
    return f"a value of type {type(value).__name__}"


def _number(value: object, sentence: str) -> float:
    if value is np.ma.masked:
        raise UserCodeError(sentence.format("a masked value"))
    plain = value.item() if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0 else value
    if isinstance(plain, numbers.Real | Decimal):
        try:
            number = float(plain)
        except OverflowError:
            raise UserCodeError(sentence.format("a number too large for a float")) from None
        if type(number) is float and math.isinf(number) and _is_finite(plain):
            raise UserCodeError(sentence.format("a number too large for a float"))
        if type(number) is float:
            return number
    raise UserCodeError(sentence.format(described(value)))


def _is_finite(number: Any) -> bool:
    """Return whether a real number is finite, so that a float of it must be."""
    if isinstance(number, np.floating):
        return bool(np.isfinite(number))
    return isinstance(number, numbers.Rational) or (isinstance(number, Decimal) and number.is_finite())
