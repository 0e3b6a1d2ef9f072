"""`studio.datasets`: bring files in, look at them, correct them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from danlu.client.transfers import upload
from danlu.client.transport import Method, Noun, covers
from danlu.errors import DataError, NotFoundError
from danlu.services.platform import datasets, downloads, storage, uploads
from danlu.services.platform import rows as rows_of
from danlu.services.platform.datasets import NewDataset
from danlu.store.datasets import Dataset, DatasetVersion, ListedDataset
from danlu.store.rows import Page


@dataclass(frozen=True)
class DatasetHandle:
    """A dataset, and the version of it that is meant."""

    dataset: Dataset
    newest: DatasetVersion

    @property
    def id(self) -> str:
        """Its id."""
        return self.dataset.id

    @property
    def name(self) -> str:
        """Its name."""
        return self.dataset.name

    @property
    def ref(self) -> str:
        """What a recipe's `dataset` names: this version, whatever is added later."""
        return f"{self.dataset.name}@{self.newest.number}"

    def __str__(self) -> str:
        return self.ref


class Datasets(Noun):
    """Datasets and their versions."""

    change = Method(datasets.change_dataset)
    columns = Method(rows_of.map_columns)
    delete = Method(datasets.delete_dataset)
    download_version = Method(downloads.download_dataset_version)
    edit = Method(rows_of.edit_rows)
    examples = Method(datasets.list_examples)
    findings = Method(rows_of.list_findings)
    fix = Method(rows_of.fix_rows)
    inspect = Method(datasets.inspect_dataset)
    rows = Method(rows_of.preview_rows)
    show_example = Method(datasets.show_example)
    split = Method(rows_of.preview_split)
    version = Method(datasets.get_dataset_version)
    versions = Method(datasets.list_dataset_versions)

    def add(self, file: str | Path, *, name: str | None = None, project: str | None = None) -> DatasetHandle:
        """Bring a data file in: a new dataset, or a new version of the one that has this name.

        The file is sent in pieces with their checksums; started again after a cut, it goes on where the last acknowledged piece ended.

        Raises:
            DataError: there is no such file.
            NoRoomError: it would not fit.
        """
        path = Path(file).expanduser()
        if not path.is_file():
            raise DataError(f"there is no file {path}", why="a dataset is made from one file", fix="check the path")
        project_id = self.studio.project_id(project)
        known = None if name is None else self._find(project_id, name)
        version = upload(self.transport, project_id, path, name=name, dataset_id=known.id if known else None)
        return DatasetHandle(self.transport.call(datasets.get_dataset, version.dataset_id), version)

    @covers(datasets.create_dataset)
    def add_example(self, example: str, *, name: str | None = None, project: str | None = None) -> DatasetHandle:
        """Make a dataset from an example that comes with Danlu, such as `danlu/zhangjiajie`."""
        made = self.transport.call(datasets.create_dataset, self.studio.project_id(project), NewDataset(example=example, name=name))
        return self._handle(made)

    @covers(datasets.list_datasets)
    def list(self, project: str | None = None, *, limit: int = 50, after: str | None = None) -> Page[ListedDataset]:
        """Datasets of a project, newest first, each with its newest version and how many rows that has."""
        return self.transport.call(datasets.list_datasets, self.studio.project_id(project), limit=limit, after=after)

    @covers(datasets.get_dataset)
    def get(self, dataset_id: str) -> DatasetHandle:
        """Return one dataset with its newest version."""
        return self._handle(self.transport.call(datasets.get_dataset, dataset_id))

    def _handle(self, dataset: Dataset) -> DatasetHandle:
        page = self.versions(dataset.id, limit=1)
        if not page.items:
            raise NotFoundError(f"dataset {dataset.name} has no version", why="its file has not arrived", fix="upload it again")
        return DatasetHandle(dataset, page.items[0])

    def _find(self, project_id: str, name: str) -> Dataset | None:
        after = None
        while True:
            page = self.list(project_id, limit=200, after=after)
            for dataset in page.items:
                if dataset.name == name:
                    return dataset
            after = page.next
            if after is None:
                return None


class Uploads(Noun):
    """Files that are on their way; `studio.datasets.add` does all of it."""

    begin = Method(uploads.begin_upload)
    list = Method(uploads.list_uploads)
    get = Method(uploads.get_upload)
    finish = Method(uploads.finish_upload)
    abandon = Method(uploads.abandon_upload)


class Storage(Noun):
    """The room that things take."""

    usage = Method(storage.get_usage)
    collect_garbage = Method(storage.collect_garbage)
    check = Method(storage.check_storage)
