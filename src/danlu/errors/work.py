"""Errors of the work itself: recipes, data, models, training, evaluation, export, files."""

from danlu.errors.base import DanluError


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
