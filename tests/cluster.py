"""A throw-away PostgreSQL cluster: the demo shows it to people, the tests break it.

It exists because neither may touch a server that is already on the machine: everything (data, socket, log) lives in one
short-named temp directory that only the server's user can enter, the server listens on no network address, and it ends
with the process that started it, however that process ends.

The install it runs is the one that `IOT_PG_CONFIG` names: a private copy of PostgreSQL with the extension in it, which
`make` prepares. PostgreSQL refuses to run as root, so for root the server runs as `postgres`, or as `nobody`.
"""

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg
from psycopg import sql as composed

__all__ = ["Cluster", "ClusterError", "Database", "cpu_seconds", "wait_until"]

SUPERUSER = "postgres"
PORT = 5432  # only a part of the socket's file name: nothing listens on a network address
SOCKET_PATH_LIMIT = 100  # the kernel's is 107 bytes
DIRECTORY_PREFIX = "iot-"


class ClusterError(RuntimeError):
    """The server did not do what it was told; the message ends with the tail of its log."""


def wait_until(condition, timeout=60.0, interval=0.02, what="condition"):
    """Calls `condition` until it returns something true, and returns that. Tests use this and never a blind sleep."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what} did not come true within {timeout} s")
        time.sleep(interval)


def cpu_seconds(pid):
    """Processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def clean_environment(**extra):
    """The caller's environment without what would change a server's or a client's behaviour.

    RUST_BACKTRACE goes because pgrx appends a backtrace to the DETAIL of every error while it is set.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "LC_", "RUST_")) and name not in ("LANG", "LANGUAGE", "TZ")
    }
    return environment | {"LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "10"} | extra


def server_user():
    """The passwd entry of the user that the server runs as: the caller, unless that is root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ClusterError("root needs a user named postgres or nobody to run the server as")


class Cluster:
    """A private server. Use it as a context manager, or call `start()` and, at the end, `remove()`.

    `preload` puts the extension into shared_preload_libraries; `settings` go to postgresql.conf as they are
    (`{"timezone": "Europe/Berlin", "iot.some_setting": 5}`) and win over the defaults here. With `standby_of`, another
    cluster that runs, it begins as a copy of that one and follows it (streaming) until `SELECT pg_promote()`.
    """

    def __init__(self, preload=True, settings=None, pg_config=None, standby_of=None):
        self.pg_config = Path(pg_config or os.environ.get("IOT_PG_CONFIG") or self._no_install())
        self.bindir = Path(self._ask_pg_config("--bindir"))
        self.major = int("".join(c if c.isdigit() else " " for c in self._ask_pg_config("--version")).split()[0])
        self.user = server_user()
        self._server = None
        self._forked_by = os.getpid()
        _remove_left_overs()
        self.directory = self._make_directory()
        atexit.register(self.remove)
        _exit_on_signals()
        self.data = self.directory / "data"
        self.scratch = self.directory / "scratch"
        self.log = self.directory / "log"
        self.host, self.port = str(self.directory), PORT
        try:
            for path in (self.data, self.scratch):
                path.mkdir(mode=0o700)
                self.give_to_server(path)
            if standby_of is None:
                self.run(
                    "initdb", "-D", self.data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8",
                    "--no-sync", as_server=True,
                )
                with open(self.data / "postgresql.conf", "a", encoding="utf-8") as conf:
                    conf.write("include = 'cluster.conf'\n")
            else:
                self.run(
                    "pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
                    "-h", standby_of.host, "-p", standby_of.port, "-U", SUPERUSER, as_server=True,
                )
        except BaseException:
            self.remove()
            raise
        self.settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.host,
            "port": PORT,
            "shared_preload_libraries": "iot_ext" if preload else "",
            # A killed process loses nothing that it has handed to the kernel; only a dead machine would, and then the
            # temp directory is gone as well.
            "fsync": "off",
            "shared_buffers": "64MB",
            "max_connections": 50,
            "max_prepared_transactions": 5,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "lc_messages": "C",
            "log_line_prefix": "%m [%p] %d ",
        } | (settings or {})

    # Life cycle

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.remove()

    def start(self, timeout=60):
        """Starts the server and waits until it takes connections."""
        self._write_settings()
        with open(self.log, "ab") as log:
            # A direct child rather than pg_ctl's grandchild, so that the kernel can end it with us (pdeathsig), and in
            # a session of its own, so that Ctrl-C reaches us first.
            self._server = subprocess.Popen(
                [*self._as_server(die_with_us=True), str(self.bindir / "postgres"), "-D", str(self.data)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, env=clean_environment(),
                start_new_session=True,
            )
        wait_until(self._is_ready_or_dead, timeout, what="server start")
        if self._server.poll() is not None:
            self._server = None
            raise ClusterError(f"the server did not start:\n{self.log_tail()}")
        return self

    def stop(self, mode="fast", timeout=60):
        """Stops the server: `smart`, `fast`, or `immediate` (as after a crash). Nothing to do is fine."""
        if self._server is None:
            return
        server, self._server = self._server, None
        if server.poll() is None:
            how = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
            server.send_signal(how)
        try:
            server.wait(timeout)
        except subprocess.TimeoutExpired:
            server.send_signal(signal.SIGQUIT)
            server.wait(timeout)
            raise ClusterError(f"the server did not stop ({mode}) within {timeout} s:\n{self.log_tail()}") from None

    def restart(self, mode="fast", **settings):
        """Stops and starts again; `settings` change some (`restart(iot__setting=1)` sets `iot.setting`)."""
        self.stop(mode)
        self.settings |= {name.replace("__", "."): value for name, value in settings.items()}
        return self.start()

    def crash(self):
        """Ends every process at once without a checkpoint: the next `start()` recovers from the WAL."""
        self.stop("immediate")

    def kill9(self, pid):
        """Kills one process of this server with SIGKILL; the postmaster then restarts all the others."""
        if self._server is None or _parent_of(pid) != self._server.pid:
            raise ClusterError(f"process {pid} is no child of this server")
        os.kill(pid, signal.SIGKILL)

    def wait_ready(self, timeout=60):
        """Waits until the server takes connections (again), for example after `kill9`."""
        wait_until(self._accepts_connections, timeout, 0.05, "server ready for connections")

    def remove(self):
        """Stops the server and removes every trace of it. May be called twice."""
        if os.getpid() != self._forked_by:
            return
        atexit.unregister(self.remove)
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    # Databases and clients

    def create_database(self, name=None):
        """Makes an empty database (named for its use, if you like) and returns its name."""
        name = name or f"test_{next(_counter)}"
        with self.connect() as connection:
            connection.execute(composed.SQL("CREATE DATABASE {}").format(composed.Identifier(name)))
        return name

    def drop_database(self, name):
        """Drops a database whoever is still connected; a missing one is fine."""
        with self.connect() as connection:
            connection.execute(
                composed.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(composed.Identifier(name))
            )

    def connect(self, dbname="postgres", user=SUPERUSER, autocommit=True, **options):
        """A psycopg connection. It commits each statement by itself unless told otherwise."""
        return psycopg.connect(
            host=self.host, port=self.port, dbname=dbname, user=user, autocommit=autocommit, **options
        )

    def psql(self, sql, dbname="postgres", user=SUPERUSER, *arguments, check=True, stop_on_error=True):
        """Runs the install's own psql on SQL text, or on a file when `sql` is a Path; returns the finished process."""
        source = ["-f", str(sql)] if isinstance(sql, Path) else ["-f", "-"]
        stop = ["-v", "ON_ERROR_STOP=1"] if stop_on_error else []
        return self.run(
            "psql", "-X", "-q", *stop, *arguments, *source, *self._target(dbname, user),
            check=check, input=None if isinstance(sql, Path) else sql,
        )

    def psql_transcript(self, path, dbname, user=SUPERUSER):
        """What pg_regress compares: the statements of a file and all that psql says to them, errors included."""
        with open(path, encoding="utf-8") as script:
            return self.run(
                "psql", "-X", "-a", "-q", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on",
                *self._target(dbname, user),
                check=False, stdin=script, stderr=subprocess.STDOUT, env=clean_environment(PGTZ="UTC", PGDATESTYLE="ISO"),
            ).stdout

    def pg_dump(self, dbname, *arguments, user=SUPERUSER):
        """Runs pg_dump and returns what it printed (use `-f` and a path below `scratch` for other formats)."""
        return self.run("pg_dump", *arguments, *self._target(dbname, user)).stdout

    def pg_restore(self, dbname, path, *arguments, user=SUPERUSER):
        """Restores an archive into an existing database, stopping at the first error."""
        return self.run("pg_restore", "--exit-on-error", *arguments, *self._target(dbname, user), str(path))

    def run(self, program, *arguments, as_server=False, check=True, **options):
        """Runs a program of the install, as the server's user if told so; returns the finished process."""
        who = self._as_server() if as_server else []
        defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": clean_environment()}
        if options.get("input") is None:
            defaults["stdin"] = subprocess.DEVNULL
        finished = subprocess.run(
            [*who, str(self.bindir / program), *map(str, arguments)],
            text=True, cwd=self.directory, check=False, **defaults | options,
        )
        if check and finished.returncode != 0:
            raise ClusterError(
                f"{program} ended with status {finished.returncode}:\n"
                f"{(finished.stdout or '')[-2000:]}{(finished.stderr or '')[-4000:]}"
            )
        return finished

    def give_to_server(self, path):
        """Makes a file readable for the server (COPY … FROM 'file'), which may run as another user."""
        if os.geteuid() == 0:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def log_tail(self, lines=40):
        """The last lines of the server's log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    def psql_command(self, dbname="postgres"):
        """What a person types to look inside."""
        return f"{self.bindir / 'psql'} -h {self.host} -p {self.port} -U {SUPERUSER} -d {dbname}"

    # Inside

    def _no_install(self):
        raise ClusterError("IOT_PG_CONFIG is not set: run this through `make` (for example `make test-e2e`)")

    def _ask_pg_config(self, what):
        return subprocess.run([self.pg_config, what], capture_output=True, text=True, check=True).stdout.strip()

    def _make_directory(self):
        socket_name = f"/{DIRECTORY_PREFIX}{os.getpid()}-xxxxxxxx/.s.PGSQL.{PORT}"
        base = tempfile.gettempdir()
        if len(base) + len(socket_name) > SOCKET_PATH_LIMIT:
            base = "/tmp"
        directory = Path(tempfile.mkdtemp(prefix=f"{DIRECTORY_PREFIX}{os.getpid()}-", dir=base))
        self.give_to_server(directory)
        return directory

    def _as_server(self, die_with_us=False):
        if not shutil.which("setpriv"):
            if os.geteuid() == 0:
                raise ClusterError("setpriv (package util-linux) is needed to run a server as root")
            return []
        command = ["setpriv"]
        if die_with_us and threading.current_thread() is threading.main_thread():
            # The kernel counts the end of the starting thread, not of the process.
            command.append("--pdeathsig=QUIT")
        if os.geteuid() == 0:
            command += [f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--init-groups"]
        return command + ["--"] if len(command) > 1 else []

    def _write_settings(self):
        path = self.data / "cluster.conf"
        quoted = {name: str(value).replace("'", "''") for name, value in self.settings.items()}
        path.write_text("".join(f"{name} = '{value}'\n" for name, value in quoted.items()), encoding="utf-8")
        self.give_to_server(path)

    def _is_ready_or_dead(self):
        return self._server.poll() is not None or self._accepts_connections()

    def _accepts_connections(self):
        return self.run("pg_isready", *self._target("postgres", SUPERUSER), check=False).returncode == 0

    def _target(self, dbname, user):
        return ["-h", self.host, "-p", str(self.port), "-U", user, "-d", dbname]


class Database:
    """One database of a cluster, with a connection for the simple cases."""

    def __init__(self, cluster, name=None):
        self.cluster = cluster
        self.name = cluster.create_database(name)
        self._connection = None

    @property
    def connection(self):
        """The database's own autocommit connection, opened at first use and again after it broke."""
        if self._connection is None or self._connection.closed:
            self._connection = self.connect()
        return self._connection

    def connect(self, user=SUPERUSER, **options):
        """One more connection, for what needs two sessions or another role."""
        return self.cluster.connect(self.name, user, **options)

    def execute(self, sql, parameters=None):
        """Runs one statement and returns its cursor."""
        return self.connection.execute(sql, parameters)

    def rows(self, sql, parameters=None):
        """All rows of a query."""
        return self.execute(sql, parameters).fetchall()

    def row(self, sql, parameters=None):
        """The only row of a query."""
        (row,) = self.rows(sql, parameters)
        return row

    def value(self, sql, parameters=None):
        """The only value of the only row of a query."""
        (value,) = self.row(sql, parameters)
        return value

    def psql(self, sql, user=SUPERUSER, *arguments, **options):
        """Runs SQL text or a file (a Path) with psql."""
        return self.cluster.psql(sql, self.name, user, *arguments, **options)

    def drop(self):
        """Closes the connection and drops the database."""
        if self._connection is not None:
            self._connection.close()
        self.cluster.drop_database(self.name)


def _count():
    number = 0
    while True:
        number += 1
        yield number


_counter = _count()
_signals_are_set = False


def _exit_on_signals():
    """Turns the signals that would end us silently into an exit that runs the atexit functions."""
    global _signals_are_set
    if _signals_are_set or threading.current_thread() is not threading.main_thread():
        return
    for name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is signal.SIG_DFL:
            signal.signal(name, lambda number, _frame: sys.exit(128 + number))
    _signals_are_set = True


def _parent_of(pid):
    try:
        # The command name in the second field may itself hold spaces and brackets.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _remove_left_overs():
    """Removes the directories of our own runs that were killed before they could clean up."""
    ours = {os.geteuid(), server_user().pw_uid}
    for base in {tempfile.gettempdir(), "/tmp"}:
        for path in Path(base).glob(f"{DIRECTORY_PREFIX}[0-9]*-*"):
            owner = path.name.removeprefix(DIRECTORY_PREFIX).partition("-")[0]
            try:
                if owner.isdigit() and path.lstat().st_uid in ours and not Path(f"/proc/{owner}").exists():
                    shutil.rmtree(path, ignore_errors=True)
            except FileNotFoundError:
                continue
