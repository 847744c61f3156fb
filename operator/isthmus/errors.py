"""Every exception of Isthmus, in one tree, so that each `except` can name what it means.

::

    IsthmusError
    ├── SettingsError                    the operator's own settings are wrong: exit
    ├── NotLeaderError                   a mutation was tried without a valid lease: exit
    ├── SecretMissingError               a Secret that an object refers to is missing or unusable
    ├── NameTakenError                   an object of a name that we need is not ours
    ├── ApiError                         an answer of the API server
    │   ├── ApiConflictError             409, resourceVersion or uid differs: observe again
    │   ├── ApiAlreadyExistsError        409 on create
    │   ├── ApiNotFoundError             404 on a patch or delete
    │   ├── ApiInvalidError              400, 422: permanent until the object changes
    │   ├── ApiForbiddenError            401, 403: the operator lacks a permission
    │   └── ApiUnavailableError          5xx, 429, no connection: transient
    │       └── ApiUnclearError          a write got no answer: it may have been committed
    ├── EngineError                      an engine could not be asked
    │   ├── EngineRefusedError           no connection could be made
    │   └── EngineAnswerError            what came is no answer
    ├── HttpFailedError                  a server that a user names gave no usable answer
    ├── SshError                         a connection over ssh could not be made, or was lost
    └── SlurmError                       an answer of SLURM, or none
        ├── SlurmUnavailableError        no complete, trustworthy observation: transient
        │   └── SlurmNotAskedError       and surely nothing was sent
        └── SlurmCommandError            a command was understood and refused
"""

from enum import StrEnum

from isthmus.api.reasons import Reason


class IsthmusError(Exception):
    """Root of all errors raised by this package."""


class SettingsError(IsthmusError):
    """A setting of the operator itself is missing or wrong."""


class NotLeaderError(IsthmusError):
    """A mutation was about to run without a valid lease; nothing was sent."""


class SecretMissingError(IsthmusError):
    """A Secret or a key of one that an object refers to is missing; the message holds no value."""


class NameTakenError(IsthmusError):
    """An object of a name that we need belongs to somebody else."""


class ApiError(IsthmusError):
    """An answer of the API server that is not a success.

    Attributes:
        status: HTTP status, 0 where there was no answer.
        reason: `reason` of the Kubernetes Status object, "" where there was none.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class ApiConflictError(ApiError):
    """The object changed since it was read (409); observe again."""


class ApiAlreadyExistsError(ApiError):
    """An object of that name exists already (409 AlreadyExists on create)."""


class ApiNotFoundError(ApiError):
    """The object to patch or delete does not exist (404)."""


class ApiInvalidError(ApiError):
    """The API server refuses the content (400, 422): permanent until it changes."""


class ApiForbiddenError(ApiError):
    """The operator lacks a permission (401, 403)."""


class ApiUnavailableError(ApiError):
    """The API server did not do its work (5xx, 429, no connection): transient."""


class ApiUnclearError(ApiUnavailableError):
    """A write was sent and no answer came: it may or may not have been committed."""


class EngineError(IsthmusError):
    """An engine could not be asked."""


class EngineRefusedError(EngineError):
    """No connection to an engine could be made."""


class EngineAnswerError(EngineError):
    """What an engine sent is no answer, or is too large for one."""


class HttpFailedError(IsthmusError):
    """A server that is not ours gave no answer that can be used; the message holds no secret."""


class AddressRefusedError(IsthmusError):
    """A host leads to an address that the operator may not connect to; says what would allow it."""


class SshError(IsthmusError):
    """A connection over ssh could not be made, was refused or was lost.

    Attributes:
        reason: for conditions.
    """

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason


class SlurmError(IsthmusError):
    """An answer of SLURM, or none."""


class SlurmUnavailableError(SlurmError):
    """No complete, trustworthy observation could be had; says nothing about any job.

    Attributes:
        reason: for conditions.
    """

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason


class SlurmNotAskedError(SlurmUnavailableError):
    """The place where commands run was not reached: nothing was sent there, and nothing ran."""


class RefusalCode(StrEnum):
    """Why SLURM refused a command, whatever the words or numbers in which it said so."""

    NO_SUCH_JOB = "NoSuchJob"
    JOB_IS_OVER = "JobIsOver"
    NO_MATCHING_JOB = "NoMatchingJob"
    """There is a job of that id, and its name or state is another."""
    PERMISSION_DENIED = "PermissionDenied"
    NOT_A_JOB_NAME = "NotAJobName"
    """Nothing was sent: no job of ours can have that name."""


class SlurmCommandError(SlurmError):
    """SLURM understood a command and refused it.

    Attributes:
        code: why.
    """

    def __init__(self, message: str, *, code: RefusalCode) -> None:
        super().__init__(message)
        self.code = code
