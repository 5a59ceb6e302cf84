"""The least that accepting a job and reading a finished chunk do on the disk: one commit; one SELECT and one file."""

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CLIPS = 40
READERS = 4


class OnDisk:
    """An SQLite database set up as the service's is (WAL, every commit forced to the disk), and clips beside it."""

    def __init__(self, folder: Path, clip: bytes) -> None:
        self._folder = folder
        self._local = threading.local()
        self._writer = ThreadPoolExecutor(1, "peer-write")
        self._readers = ThreadPoolExecutor(READERS, "peer-read")
        folder.mkdir(exist_ok=True)
        with self._connection() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, text TEXT)")
            connection.execute("CREATE TABLE IF NOT EXISTS clips (number INTEGER PRIMARY KEY, name TEXT)")
            for number in range(CLIPS):
                connection.execute("INSERT OR REPLACE INTO clips VALUES (?, ?)", (number, f"{number}.pcm"))
                (folder / f"{number}.pcm").write_bytes(clip)

    @property
    def url(self) -> str:
        """For SQLAlchemy."""
        return f"sqlite+aiosqlite:///{self._folder}/jobs.db"

    async def commit(self, job_id: str, text: str) -> None:
        """One row, on the disk when this returns."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._commit, job_id, text)

    async def clip(self, number: int) -> bytes:
        """The clip whose name is in the row."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._clip, number)

    def _commit(self, job_id: str, text: str) -> None:
        self._connection().execute("INSERT INTO jobs VALUES (?, ?)", (job_id, text))

    def _clip(self, number: int) -> bytes:
        row = self._connection().execute("SELECT name FROM clips WHERE number = ?", (number,)).fetchone()
        return (self._folder / row[0]).read_bytes()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._folder / "jobs.db", timeout=10.0, isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            self._local.connection = connection
        return connection
