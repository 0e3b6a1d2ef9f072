"""Every error a user can meet, in one tree. Codes are stable and documented in docs/errors.md.

The docstring of a class is its text on that page (scripts/docs.py): what it means, why it exists, what to do.

    DanluError                DL000
    +- RecipeError            DL100   a recipe that does not validate (all its mistakes at once)
    |  +- UnknownNameError    DL101   a plugin, model or dataset name that does not exist
    |  +- NoEffectError       DL102   a setting that would do nothing, or a combination that cannot work
    +- DataError              DL200   a data file that cannot be read
    |  +- FormatError         DL201   its format cannot be told, or is not the one asked for
    |  +- TooFewExamplesError DL202   nothing (or too little) left to train on
    +- EvaluationError        DL300
    |  +- MetricError         DL301
    +- ModelError             DL400   a base model or adapter that cannot be loaded
    |  +- UnsafeModelError    DL401   pickle weights, remote code, paths that leave the folder
    |  +- TemplateError       DL402   a chat template that cannot render or mask an example
    +- TrainingError          DL500
    |  +- OutOfMemoryError    DL501
    |  +- DivergedError       DL502   loss is NaN or infinite
    |  +- CheckpointError     DL503   no checkpoint verifies
    +- ExportError            DL600
    |  +- VerificationError   DL601   the exported model differs from the trained one
    +- StorageError           DL700   disk full, read-only folder, run folder in use
    |  +- RunNotFoundError    DL701
    |  +- RunBusyError        DL702
    |  +- DatabaseError       DL703   the database cannot be reached, is locked or damaged
    |  +- ArtifactDamagedError DL750  stored content that does not match its checksum
    |  +- ArtifactMissingError DL751  stored content that is gone
    |  +- NoRoomError         DL752   no room on the disk, or the project's share is used up
    +- UploadError            DL753   a chunk that is damaged or does not fit, a file that is not the announced one
    +- NotFoundError          DL710   an id or name that does not exist
    +- ConflictError          DL711   a change that does not fit what is stored
    |  +- OutdatedError       DL761   it was changed since it was read
    +- JobError               DL720   a job that did not come to its end
    +- SignInError            DL730   nobody is signed in
    +- ForbiddenError         DL731   the role does not suffice
    |  +- CrossSiteError      DL732   a request that another website made
    +- TooManyRequestsError   DL733
    +- TooLargeError          DL734   a body, header or address beyond the limits
    +- QuotaError             DL735   a project has used up what it may
    +- MediaTypeError         DL736   a body of a kind that is not taken
    +- HostError              DL737   asked under a name that is not this server's
    +- TooSlowError           DL738   a body that does not come
    +- ExposedError           DL739   a server that anyone could use
    +- OutboundError          DL740   an address that must not be asked
    +- ProviderError          DL741   the identity provider
    +- RequestError           DL760   a request that does not fit what the API takes
    |  +- MethodError         DL762   nothing is done in this way at this address
    +- TooManyStreamsError    DL763
    +- ServerError            DL780   a Danlu server that cannot be reached
    +- MissingExtraError      DL800   an optional part that is not installed
    +- InternalError          DL900   a defect in Danlu itself
"""

from danlu.errors.base import DanluError, InternalError, MissingExtraError, error_from
from danlu.errors.platform import (
    ArtifactDamagedError,
    ArtifactMissingError,
    ConflictError,
    CrossSiteError,
    DatabaseError,
    ExposedError,
    ForbiddenError,
    HostError,
    JobError,
    MediaTypeError,
    MethodError,
    NoRoomError,
    NotFoundError,
    OutboundError,
    OutdatedError,
    ProviderError,
    QuotaError,
    RequestError,
    ServerError,
    SignInError,
    TooLargeError,
    TooManyRequestsError,
    TooManyStreamsError,
    TooSlowError,
    UploadError,
)
from danlu.errors.work import (
    CheckpointError,
    DataError,
    DivergedError,
    EvaluationError,
    ExportError,
    FormatError,
    MetricError,
    ModelError,
    NoEffectError,
    OutOfMemoryError,
    RecipeError,
    RunBusyError,
    RunNotFoundError,
    StorageError,
    TemplateError,
    TooFewExamplesError,
    TrainingError,
    UnknownNameError,
    UnsafeModelError,
    VerificationError,
    is_out_of_memory,
)

__all__ = [
    "ArtifactDamagedError",
    "ArtifactMissingError",
    "CheckpointError",
    "ConflictError",
    "CrossSiteError",
    "DanluError",
    "DataError",
    "DatabaseError",
    "DivergedError",
    "EvaluationError",
    "ExportError",
    "ExposedError",
    "ForbiddenError",
    "FormatError",
    "HostError",
    "InternalError",
    "JobError",
    "MediaTypeError",
    "MethodError",
    "MetricError",
    "MissingExtraError",
    "ModelError",
    "NoEffectError",
    "NoRoomError",
    "NotFoundError",
    "OutOfMemoryError",
    "OutboundError",
    "OutdatedError",
    "ProviderError",
    "QuotaError",
    "RecipeError",
    "RequestError",
    "RunBusyError",
    "RunNotFoundError",
    "ServerError",
    "SignInError",
    "StorageError",
    "TemplateError",
    "TooFewExamplesError",
    "TooLargeError",
    "TooManyRequestsError",
    "TooManyStreamsError",
    "TooSlowError",
    "TrainingError",
    "UnknownNameError",
    "UnsafeModelError",
    "UploadError",
    "VerificationError",
    "error_from",
    "is_out_of_memory",
]
