"""Where Optuna keeps a search: a journal file by default, or a database that several machines reach."""

import re
import warnings
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.storages.journal import JournalFileBackend

from finetune.errors import ConfigError

optuna.logging.set_verbosity(optuna.logging.ERROR)


def place_of(storage: str | None, folder: Path) -> str:
    """Return where a sweep's state is, as any process finds it: a url, or an absolute path."""
    if storage is None:
        return str(folder / "journal.log")
    return storage if "://" in storage else str(Path(storage).expanduser().absolute())


def open_storage(place: str) -> optuna.storages.BaseStorage:
    """Return the storage at a place.

    Raises:
        ConfigError: The database cannot be reached.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "://" not in place:
            return open_journal(Path(place))
        try:
            patience = {"connect_args": {"timeout": 60}} if place.startswith("sqlite") else None
            return optuna.storages.RDBStorage(place, engine_kwargs=patience)
        except Exception as error:  # noqa: BLE001 - whatever the driver of the database raises
            first = without_password((str(error).strip() or type(error).__name__).splitlines()[0])
            raise ConfigError(
                f"The storage {without_password(place)} cannot be opened: {first}. Use a url such as "
                "sqlite:////shared/a.db, or a file."
            ) from error


def without_password(text: str) -> str:
    """Return a text in which the password of a url is left out."""
    return re.sub(r"(://[^:/@\s]*:)[^@\s]+@", r"\1***@", text)


def open_journal(file: Path) -> optuna.storages.JournalStorage:
    """Return the storage in a journal file, which is made where it is not there.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{file}.lock")  # a process that is killed leaves none behind
        backend = JournalFileBackend(str(file), lock_obj=lock)  # type: ignore[arg-type]
        return optuna.storages.JournalStorage(backend)
    except OSError as error:
        raise ConfigError(f"The storage {file} cannot be written ({error.strerror}). Set sweep.storage=.") from error
