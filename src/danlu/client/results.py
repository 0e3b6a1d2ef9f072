"""`studio.models`, `studio.exports`, `studio.chat`, `studio.votes`: what came out of runs, and what people think of it."""

from __future__ import annotations

from danlu.client.transport import Method, Noun, covers
from danlu.services.platform import chat, downloads, exports, models, votes
from danlu.services.platform.exports import NewExport
from danlu.services.platform.models import NewModel
from danlu.store.jobs import Job
from danlu.store.rows import Page
from danlu.store.runs import Export, Model


class Models(Noun):
    """The registry of models, and the base models of this machine."""

    get = Method(models.get_model)
    delete = Method(models.delete_model)
    lineage = Method(models.get_lineage)
    base = Method(models.list_base_models)
    download_file = Method(downloads.download_model_file)

    @covers(models.register_model)
    def register(self, run_id: str, name: str) -> Model:
        """Keep what a finished run made under a name, with the next number."""
        return self.transport.call(models.register_model, run_id, NewModel(name=name))

    @covers(models.list_models)
    def list(self, project: str | None = None, *, name: str | None = None, limit: int = 50, after: str | None = None) -> Page[Model]:
        """Models of a project, or versions of one name, newest first."""
        return self.transport.call(models.list_models, self.studio.project_id(project), name=name, limit=limit, after=after)


class Exports(Noun):
    """Runs as files that other tools load, verified."""

    get = Method(exports.get_export)
    delete = Method(exports.delete_export)
    download_file = Method(downloads.download_export_file)

    @covers(exports.submit_export)
    def submit(self, run_id: str, type: str) -> Job:
        """Export a finished run as `adapter`, `merged`, ...; the export appears when it was verified."""
        return self.transport.call(exports.submit_export, run_id, NewExport(type=type))

    @covers(exports.list_exports)
    def list(self, project: str | None = None, *, run_id: str | None = None, limit: int = 50, after: str | None = None) -> Page[Export]:
        """Exports of a project, or of one run, newest first."""
        return self.transport.call(exports.list_exports, self.studio.project_id(project), run_id=run_id, limit=limit, after=after)


class Chat(Noun):
    """Talking to models."""

    ask = Method(chat.answer)
    engines = Method(chat.list_engines)
    load = Method(chat.load_engine)
    unload = Method(chat.unload_engine)


class Votes(Noun):
    """Votes and ratings on answers."""

    create = Method(votes.create_vote)
    list = Method(votes.list_votes)
    delete = Method(votes.delete_vote)
    rate = Method(votes.create_rating)
    ratings = Method(votes.list_ratings)
    delete_rating = Method(votes.delete_rating)
    tally = Method(votes.count_votes)
    pairs = Method(votes.export_pairs)
    make_dataset = Method(votes.make_pairs_dataset)
