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

from collections.abc import Mapping
from typing import ClassVar


class DanluError(Exception):
    """What happened, why, and what to do about it.

    Why: it is never raised itself; catch it to catch everything that Danlu raises on purpose.
    Fix: read the three lines of the error; the code leads to its place on this page.
    """

    code: ClassVar[str] = "DL000"
    http_status: ClassVar[int] = 400
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        super().__init__(what, why, fix)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        return f"{self.code}: {self.what}\n  why: {self.why}\n  fix: {self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.why, self.fix)

    def to_dict(self) -> dict[str, str]:
        """Code and sentences as plain values, to be stored."""
        return {"code": self.code, "what": self.what, "why": self.why, "fix": self.fix}


def _rebuild(cls: type[DanluError], what: str, why: str, fix: str) -> DanluError:
    return cls(what, why=why, fix=fix)


def error_from(told: Mapping[str, str]) -> DanluError:
    """The error that another process told by `to_dict`, of the same class where this version has it."""
    classes = [DanluError]
    for cls in classes:
        classes += cls.__subclasses__()
    found = next((cls for cls in classes if cls.code == told["code"]), DanluError)
    return found(told["what"], why=told["why"], fix=told["fix"])


class RecipeError(DanluError, ValueError):
    """A recipe that does not validate; `what` lists every mistake with its path.

    Why: a recipe is checked as a whole before anything runs, so that a run never stops at a typing mistake an hour later.
    Fix: correct every path that is listed; `docs/recipe.md` has each field with its type, range and default.
    """

    code, exit_code = "DL100", 2


class UnknownNameError(RecipeError):
    """A name that is not installed, bundled or on disk. A ValueError, so pydantic keeps its `loc`.

    Why: names come from closed lists (what is installed, what is bundled, what is on disk); nothing is guessed or downloaded under a similar name.
    Fix: take one of the names that the message lists, or install the plugin that provides it.
    """

    code = "DL101"


class NoEffectError(RecipeError):
    """A setting that would do nothing, or a combination that cannot work.

    Why: a setting that is silently ignored makes a run look like something it was not.
    Fix: remove the setting, or choose the method or objective that uses it.
    """

    code = "DL102"


class DataError(DanluError, ValueError):
    """A data file that cannot be read.

    Why: the file is missing, empty, not text, cut off, or in an encoding that cannot be told.
    Fix: open it in the program that wrote it and save it again as UTF-8 JSONL, or give the path of the right file.
    """

    code, exit_code = "DL200", 3


class FormatError(DataError):
    """The format of a data file cannot be told, or its rows do not fit the one asked for.

    Why: the columns or keys match none of the known shapes, or several equally well, or not the one that was asked for.
    Fix: rename the columns as the message shows, or name the format: `--data.format alpaca`.
    """

    code = "DL201"


class TooFewExamplesError(DataError):
    """Nothing, or too little, is left to train or evaluate on.

    Why: after dropping unusable and duplicate rows, and after the split, not enough rows remain.
    Fix: read `data/dropped.jsonl` of the run for the reason of each row; add rows, or lower `data.split`.
    """

    code = "DL202"


class EvaluationError(DanluError, ValueError):
    """An evaluation that cannot be carried out.

    Why: a suite, a metric or the held-out rows it needs are not there.
    Fix: follow the message: usually a suite has to be left out, or `data.split.test` has to be greater than 0.
    """

    code, exit_code = "DL300", 5


class MetricError(EvaluationError):
    """A metric cannot be computed from the data it was given.

    Why: a number that is not defined for these rows is not shown at all, rather than shown as 0.
    Fix: remove the metric from `evaluation.metrics`, or give it the rows it needs.
    """

    code = "DL301"


class ModelError(DanluError, ValueError):
    """A base model or adapter that cannot be loaded.

    Why: a file of the model folder is missing, cut off, or of an architecture that this version of Transformers does not know.
    Fix: download the model again, or choose a causal language model with safetensors weights.
    """

    code, exit_code = "DL400", 4


class UnsafeModelError(ModelError):
    """A model folder that could run code or read outside itself.

    Why: pickle files and remote code run programs when they are loaded, and paths that leave the folder read other people's files; Danlu never does either.
    Fix: use a copy of the model with `.safetensors` weights and without `auto_map`; convert a pickle in a place where it may do harm.
    """

    code = "DL401"


class TemplateError(ModelError):
    """A chat template that cannot render an example or tell which tokens are trained.

    Why: training, chat and evaluation use the tokenizer's own chat template, and the trained tokens must be told from it exactly.
    Fix: correct the example that is named, or use a tokenizer whose chat template renders every turn that came before unchanged.
    """

    code = "DL402"


class TrainingError(DanluError, RuntimeError):
    """Training cannot go on.

    Why: the data, the model and the recipe do not fit together, or the machine failed.
    Fix: follow the message; the same command starts again from the last checkpoint.
    """

    code, exit_code = "DL500", 5


class OutOfMemoryError(TrainingError):
    """Not even the smallest micro batch fits.

    Why: Danlu has already halved the micro batch down to one example; the message says what is needed and what there is.
    Fix: lower `data.max_seq_len`, use `method: lora` or a smaller model, or close other programs.
    """

    code = "DL501"


OUT_OF_MEMORY_WORDS = ("can't allocate memory", "out of memory", "std::bad_alloc", "could not create a primitive", "could not execute a primitive")
"""The last two are oneDNN's, which says no more: for the float32 products it is given here, memory is what it can lack."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or a GPU had no memory left (torch says so in words only)."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(words in said for words in OUT_OF_MEMORY_WORDS))


class DivergedError(TrainingError):
    """The loss or its gradient became NaN or infinite.

    Why: nearly always a learning rate that is too high, or broken rows.
    Fix: lower `optim.learning_rate` (a third of it is a good next try) and start the run again.
    """

    code = "DL502"


class CheckpointError(TrainingError):
    """A checkpoint that does not verify.

    Why: a checkpoint counts only when every file has the size and SHA-256 of its manifest; none of those found has.
    Fix: check the disk; to begin anew, remove the `checkpoints` folder of the run.
    """

    code = "DL503"


class ExportError(DanluError, RuntimeError):
    """An export that cannot be made.

    Why: the run has not finished, its files were moved, or the format does not fit the model.
    Fix: finish the run first (`danlu run` with the same folder continues it), or choose another format.
    """

    code, exit_code = "DL600", 6


class VerificationError(ExportError):
    """The exported model does not behave like the trained one; it was removed.

    Why: every export is loaded again and compared with the trained model on held-out prompts; an artifact that was not proved equal is not kept.
    Fix: try `danlu export RUN --to adapter`; if it happens again, report it with the numbers in the message.
    """

    code = "DL601"


class StorageError(DanluError, OSError):
    """Disk full, a read-only folder, an I/O error.

    Why: the operating system refused to read or write; its reason is in the message.
    Fix: free some space or choose a writable folder (`--run-dir`, `DANLU_HOME`), then start the same command again: it continues where it was.
    """

    code, http_status, exit_code = "DL700", 507, 7

    def __str__(self) -> str:
        return DanluError.__str__(self)


class RunNotFoundError(StorageError):
    """No run of that name or folder.

    Why: a run is found by its folder, by its id in the home folder, or as `last`.
    Fix: list the runs with `danlu runs`, or set `DANLU_HOME` to the home folder they are in.
    """

    code, http_status = "DL701", 404


class RunBusyError(StorageError):
    """Another process is working on this run.

    Why: two processes writing into one run folder would corrupt it.
    Fix: wait for the other process or stop it with Ctrl-C; its number is in the message.
    """

    code, http_status = "DL702", 409


class DatabaseError(StorageError):
    """The database cannot be used.

    Why: its file or server cannot be reached, another program holds it, its disk is full, or it is damaged; the message names the reason.
    Fix: follow the message; a damaged file is replaced by the newest backup with `danlu restore`.
    """

    code, http_status = "DL703", 503


class ArtifactDamagedError(StorageError):
    """Stored content that does not match its checksum; it is never handed out.

    Why: every artifact is verified while it is read; a disk or a program from outside has changed it.
    Fix: put the same file in again (it replaces the damaged one), or restore it from a backup; check the disk.
    """

    code, http_status = "DL750", 503


class ArtifactMissingError(StorageError):
    """Stored content that is gone.

    Why: the file was removed from outside Danlu, or the artifact folder is not the one it was put into.
    Fix: put the same file in again, or restore the artifacts from a backup; check `DANLU_ARTIFACT_URL`.
    """

    code, http_status = "DL751", 503


class NoRoomError(StorageError):
    """Something that would take more room than there is.

    Why: the disk would have less left than is kept free, or the project would have more than its share.
    Fix: delete what is no longer needed and collect the garbage, or ask the administrator to raise the limit that the message names.
    """

    code, http_status = "DL752", 413


class UploadError(DanluError, ValueError):
    """A part of an upload that was damaged on its way, or a file that is not the one that was announced.

    Why: every chunk and the whole file are compared with the checksums that were sent with them.
    Fix: ask where the upload stands and send the rest from there; what was acknowledged need not be sent again.
    """

    code, exit_code = "DL753", 7


class NotFoundError(DanluError, LookupError):
    """An id or a name that does not exist, or that you may not see.

    Why: things are found by the ids that lists show; what belongs to others looks as if it did not exist.
    Fix: list the things of that kind and take an id from there.
    """

    code, http_status, exit_code = "DL710", 404, 9

    def __str__(self) -> str:
        return DanluError.__str__(self)


class ConflictError(DanluError, RuntimeError):
    """A change that does not fit what is stored.

    Why: someone else changed it first, its name is taken, something still uses it, or it is in a state in which this cannot be done.
    Fix: load it again and repeat the change, or choose another name.
    """

    code, http_status, exit_code = "DL711", 409, 9


class OutdatedError(ConflictError):
    """A change of something that was changed since it was read.

    Why: a change names the version it was made for (`If-Match` in REST), so that nobody overwrites what another one wrote in between.
    Fix: load it again and repeat the change.
    """

    code, http_status = "DL761", 412


class JobError(DanluError, RuntimeError):
    """A job that did not come to its end.

    Why: its process died again and again without getting further, or a job that it needs did not succeed.
    Fix: read the log of the job; start it again when the cause is gone. It goes on from its last checkpoint.
    """

    code, exit_code = "DL720", 10


class SignInError(DanluError, PermissionError):
    """Nobody is signed in, or what was sent to sign in is not valid.

    Why: the studio asks who you are before it shows or changes anything; a session or a key may have ended.
    Fix: sign in again, or send a valid API key as `Authorization: Bearer dl_...`.
    """

    code, http_status, exit_code = "DL730", 401, 11

    def __str__(self) -> str:
        return DanluError.__str__(self)


class ForbiddenError(DanluError, PermissionError):
    """Something that your role, or the place you ask from, does not allow.

    Why: projects have viewers, reviewers, editors and administrators, each with more rights than those before.
    Fix: ask an administrator of the project for the role that the message names.
    """

    code, http_status, exit_code = "DL731", 403, 11

    def __str__(self) -> str:
        return DanluError.__str__(self)


class CrossSiteError(ForbiddenError):
    """A request that a page of another website made, or that lacks the proof that it was not.

    Why: a browser sends cookies with requests that any website starts; what changes something must come from the studio's own pages.
    Fix: use the studio under its own address; a program sends an API key (`Authorization: Bearer dl_...`) instead of a cookie, a page `X-CSRF-Token`.
    """

    code = "DL732"


class TooManyRequestsError(DanluError, RuntimeError):
    """More requests, or more attempts to sign in, than are allowed in a while.

    Why: passwords must not be guessed by trying, and one program must not take the server from all others.
    Fix: wait as long as the message says; an administrator sets the limit with `DANLU_RATE_LIMIT`.
    """

    code, http_status, exit_code = "DL733", 429, 11


class TooLargeError(DanluError, ValueError):
    """A request whose body, headers or address are larger than the server takes.

    Why: memory and disk are shared by everybody; a request must not fill them before anyone looked at it.
    Fix: send less at once; files go through the upload, in parts.
    """

    code, http_status = "DL734", 413


class QuotaError(DanluError, RuntimeError):
    """A project has used up what it may.

    Why: the queue is shared; an administrator limits how many jobs of a project may wait in it.
    Fix: wait for jobs to end, cancel some, or ask for more (`DANLU_MAX_WAITING_JOBS`).
    """

    code, http_status, exit_code = "DL735", 409, 9


class MediaTypeError(DanluError, ValueError):
    """A request body of a kind that this route does not take.

    Why: forms can be sent by any website; the API takes JSON, and parts of files as octets.
    Fix: send `Content-Type: application/json`.
    """

    code, http_status = "DL736", 415


class HostError(DanluError, ValueError):
    """The server was asked under a name that is not its own.

    Why: a website can make a name of its own point to this machine and then read what it likes, unless the server insists on its name.
    Fix: use the address that the server printed at its start, or add the name with `DANLU_HOSTS` or `DANLU_PUBLIC_URL`.
    """

    code, http_status = "DL737", 421


class TooSlowError(DanluError, TimeoutError):
    """The body of a request did not come in time.

    Why: connections that stay open without sending take the server from everybody else.
    Fix: send it again over a better connection; files go through the upload, in parts.
    """

    code, http_status = "DL738", 408

    def __str__(self) -> str:
        return DanluError.__str__(self)


class ExposedError(DanluError, RuntimeError):
    """A server that would be open to everybody on the network.

    Why: without users whoever reaches the server may do anything; that is only right on the machine itself.
    Fix: bind to 127.0.0.1, or set `DANLU_AUTH=users` and make the first administrator with the token that is printed.
    """

    code, exit_code = "DL739", 2


class OutboundError(DanluError, ValueError):
    """A web address that the server must not ask, or that did not answer as it should.

    Why: the server can reach what its users cannot (this machine, the local network, the cloud's metadata service); an address from a user must not lead there.
    Fix: give a public `https` address; an administrator permits an internal one with `DANLU_ALLOW_HOSTS`.
    """

    code = "DL740"


class ProviderError(DanluError, RuntimeError):
    """The identity provider cannot be used for signing in.

    Why: it cannot be reached, is set up in another way, or what it says does not verify.
    Fix: check `DANLU_OIDC_ISSUER`, `DANLU_OIDC_CLIENT_ID` and `DANLU_OIDC_CLIENT_SECRET`, and the redirect address registered with the provider.
    """

    code, http_status, exit_code = "DL741", 502, 11


class RequestError(DanluError, ValueError):
    """A request that does not fit what the API takes; `errors` lists every mistake with its place.

    Why: addresses, headers, options and bodies are checked as a whole before anything is done.
    Fix: correct every place that is listed; docs/rest.md has each operation with its types and bounds.
    """

    code, http_status, exit_code = "DL760", 422, 2


class MethodError(RequestError):
    """Nothing is done with this method at this address.

    Why: each address takes the methods that docs/rest.md lists, and no others.
    Fix: use one of the methods that the `Allow` header of the answer names.
    """

    code, http_status = "DL762", 405


class TooManyStreamsError(DanluError, RuntimeError):
    """More streams are open than the server can bear.

    Why: every page that follows a run holds a connection open.
    Fix: close pages that nobody looks at; ask again later, or read the events by page instead of as a stream.
    """

    code, http_status = "DL763", 503


class ServerError(DanluError, ConnectionError):
    """A Danlu server that cannot be reached, or that answers what no Danlu server of this version answers.

    Why: the address is mistyped, the server does not run, something stands between, or the versions differ; the message names what was met.
    Fix: check `--server` (`DANLU_SERVER`) and that `danlu studio` runs there; what was sent is sent again safely.
    """

    code, http_status, exit_code = "DL780", 502, 12

    def __str__(self) -> str:
        return DanluError.__str__(self)


class MissingExtraError(DanluError, RuntimeError):
    """An optional part of Danlu that is not installed.

    Why: the core of Danlu is small; training, evaluation and export bring their own packages.
    Fix: install what the message names, for example `pip install 'danlu[all]'`.
    """

    code, exit_code = "DL800", 8


class InternalError(DanluError, RuntimeError):
    """A defect in Danlu itself, not in the user's input.

    Why: something that must never happen did.
    Fix: start the command again with `--debug` and report the output; the run folder keeps everything up to that point.
    """

    code, http_status, exit_code = "DL900", 500, 70
