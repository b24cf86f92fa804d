"""A search whose study is in a real PostgreSQL server, where one is installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("psycopg")
pytest.importorskip("optuna")

from metatrain.search.config import SearchConfig  # noqa: E402
from metatrain.search.space import distributions  # noqa: E402
from metatrain.search.study import DATABASE_ERRORS, Study  # noqa: E402

SPACE = {"x": "interval(0.0, 1.0)"}


def program(name: str) -> str:
    """Its path; distributions keep it out of PATH."""
    found = shutil.which(name) or max(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=None)
    if found is None:
        pytest.skip(f"PostgreSQL is not installed: no {name}")
    return found


@pytest.fixture
def server():
    """The URL of a database, and what stops its server. It listens on a socket alone."""
    # The server refuses to run as root; pytest's own folders are closed to others.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    control = [program("pg_ctl"), "-D", str(folder / "data"), "-w"]

    def call(*command: str) -> None:
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    try:
        if user:
            shutil.chown(folder, user)
        call(program("initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "--no-sync")
        call(*control, "-l", str(folder / "log"), "-o", f"-k {folder} -c listen_addresses='' -c fsync=off", "start")
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}", lambda: call(*control, "-m", "immediate", "stop")
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                call(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_two_processes_share_a_study_in_postgresql_and_one_that_is_gone_is_noticed(tmp_path, server):
    url, stop = server

    def opened() -> Study:
        return Study(tmp_path, "search", SearchConfig(SPACE, 4, storage=url), distributions(SPACE), seed=3, validations=5)

    one, other = opened(), opened()
    taken, at_once = one.take(), other.take()
    assert (taken.number, at_once.number) == (0, 1)
    taken.lock.release()  # as of a process that is killed: another takes its trial over
    over = other.take()
    assert over.number == 0 and over.trial.params == taken.trial.params
    for each in (over, at_once):
        other.scored(each, [0.5])
        other.done(each, [0.5])
    assert [trial.params for trial in opened().trials()] == [over.trial.params, at_once.trial.params]
    stop()
    with pytest.raises(DATABASE_ERRORS):
        one.take()
