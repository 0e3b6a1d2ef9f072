"""Errors of the platform: the store, who may do what, the server and what it asks."""

from danlu.errors.base import DanluError
from danlu.errors.work import StorageError


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
    """A project or a user has used up what it may.

    Why: queue, disk and memory are shared; there may be so many jobs that wait, projects, keys, uploads and addresses to tell.
    Fix: wait for jobs to end, delete what is not needed, or ask for more (`DANLU_MAX_WAITING_JOBS`, `DANLU_MAX_PROJECTS`).
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
