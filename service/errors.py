"""What can go wrong, as one tree. Messages end with the value; each door (REST, command line) maps the tree once.

ServiceError
├── SpecificationError (a ValueError)    the campaign asked for cannot be run: every problem with its place
├── CampaignNotFoundError                no campaign with this id
├── CampaignBusyError                    another process runs the campaign
├── NothingToShowError                   the campaign holds nothing of what was asked for
├── TrialNotFoundError                   no trial with this number
├── IllegalTransitionError               the state does not allow the event
├── IdempotencyError                     the key was used for something else
├── StaleVersionError                    somebody changed it meanwhile
├── AccessError                          who asks may not
├── SettingsError                        a setting cannot be used
├── LeadershipError                      another replica leads
├── LauncherError                        drivers cannot be started or asked after just now
├── BodyError                            a request's body cannot be read at all
├── RequestError                         a server's refusal, as its client tells it
├── DataDirectoryError                   the data directory cannot be written, or is in use
├── BundleError                          a bundle is torn, changed, or none
├── FencedError                          another attempt has taken over; the writer must end
├── TrackingError                        the tracker lags behind the ledger
└── LedgerError                          the database cannot be used
    └── SpoolError                       a spool is damaged where no crash could have damaged it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


class ServiceError(Exception):
    """Anything the service refuses or fails to do."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or doubtful, with a document.

    Attributes:
        pointer: JSON pointer (RFC 6901) to the place.
        message: What is wrong and, where one exists, the nearest valid name; without the value.
        value: What stands there; None where something is missing.
    """

    pointer: str
    message: str
    value: Any = None

    def __str__(self) -> str:
        place = self.pointer or "the document"
        return f"{place}: {self.message}" + ("" if self.value is None else f": got {self.value!r}")


class SpecificationError(ServiceError, ValueError):
    """A specification that cannot be run, with every problem that was found.

    Attributes:
        problems: At least one, in the order of the document's sections.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        assert problems, "a specification is refused for a reason: got no problem"
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class CampaignNotFoundError(ServiceError):
    """No campaign has this id."""


class CampaignBusyError(ServiceError):
    """Another process runs this campaign."""


class NothingToShowError(ServiceError):
    """The campaign holds nothing of what was asked for."""


class TrialNotFoundError(ServiceError):
    """No trial of the campaign has this number."""


class IdempotencyError(ServiceError):
    """An idempotency key was used before, with another request."""


class StaleVersionError(ServiceError):
    """What is to be changed is not what was read: somebody changed it meanwhile."""


class AccessError(ServiceError):
    """Who asks may not.

    Attributes:
        status: 401 where nobody knows who asks, 403 where it is known and does not suffice.
    """

    def __init__(self, message: str, *, status: int) -> None:
        self.status = status
        super().__init__(message)


class BodyError(ServiceError):
    """A body that cannot be read at all.

    Attributes:
        status: 400, 408, 413 or 415.
        kind: The last part of the problem's type.
    """

    def __init__(self, message: str, *, status: int, kind: str) -> None:
        self.status = status
        self.kind = kind
        super().__init__(message)


class SettingsError(ServiceError):
    """A setting cannot be used; named with its value, secrets without."""


class LeadershipError(ServiceError):
    """Another replica leads; what was about to be done is its to do."""


class LauncherError(ServiceError):
    """Drivers cannot be started or asked after just now; nothing is known about them."""


class RequestError(ServiceError):
    """A server refused, or could not be reached."""


class IllegalTransitionError(ServiceError):
    """An event that a state does not allow, told with what happened before.

    Attributes:
        state: Where the campaign or trial stands.
        event: What was tried.
        story: The moves so far, oldest first.
    """

    def __init__(self, *, state: str, event: str, allowed: Iterable[str], story: Iterable[str]) -> None:
        self.state = state
        self.event = event
        self.story = tuple(story)
        allows = ", ".join(allowed) or "nothing"
        past = " -> ".join(self.story) or "nothing yet"
        super().__init__(f"{state} allows {allows}; what happened so far: {past}: got {event}")


class DataDirectoryError(ServiceError):
    """The data directory cannot be written, or another process has it."""


class BundleError(ServiceError):
    """A bundle is torn, changed, or none."""


class FencedError(ServiceError):
    """The writer's attempt is no longer the campaign's."""


class TrackingError(ServiceError):
    """The tracker lags behind the ledger; nothing is lost."""


class LedgerError(ServiceError):
    """The database cannot be reached, or it is not ours."""


class SpoolError(LedgerError):
    """A spool is damaged where no crash could have damaged it."""
