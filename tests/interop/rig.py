"""vcsim or our own simulator, a database, the daemon between them, and pyvmomi beside it.

pyvmomi is VMware's own client: what it reads is what is there.
"""

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

DEADLINE = 120
REPO = sys.argv[1]
DATABASE = "virt_interop"
BINARY = f"{REPO}/target/debug/virt-collector"


def psql(*commands, database=DATABASE):
    connect = [] if database is None else ["-c", f"\\c {database}"]
    arguments = [part for command in commands for part in ("-c", command)]
    # The cluster that `cluster run` has started is named by its URL.
    return subprocess.run(
        [f"{REPO}/tests/support/cluster", "psql", os.environ.get("VIRT_CLUSTER", "interop"), "-XqAt",
         "-v", "ON_ERROR_STOP=1", *connect, *arguments],
        check=True, capture_output=True, text=True).stdout.strip()


def rows(sql):
    return json.loads(psql(f"SELECT coalesce(json_agg(row_to_json(t)), '[]') FROM ({sql}) AS t"))


def until(what, look):
    deadline = time.monotonic() + DEADLINE
    while not look():
        if time.monotonic() > deadline:
            sys.exit(f"not within {DEADLINE} s: {what}")
        time.sleep(0.2)


def finish(task):
    until(f"task {task}", lambda: task.info.state in ("success", "error"))
    if task.info.state == "error":
        sys.exit(f"vcsim: {task.info.error}")


def secret(path, text):
    with open(path, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(f"{text}\n")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def vcsim(*arguments):
    """Its command line, for a file with the password; it takes the password itself."""
    return lambda _: [os.environ["VIRT_TEST_VCSIM"], "-l", "127.0.0.1:0", "-stdinexit", "-username", "user",
                      "-password", "pass", *arguments]


def simulator(*arguments):
    """As `vcsim`."""
    return lambda password: [f"{REPO}/target/debug/vsphere-simulator", "--exit-with-parent", "--user", "user",
                             "--password-file", password, *arguments]


def listens(port):
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


class Rig:
    """Platform `interop` is collected while it is entered."""

    def __init__(self, kind, server, configuration=""):
        self.kind, self.server, self.configuration = kind, server, configuration
        self.directory = tempfile.TemporaryDirectory()
        self.work = self.directory.name
        self.config = f"{self.work}/config.toml"
        self.stops = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        psql(f"DROP DATABASE IF EXISTS {DATABASE}", f"CREATE DATABASE {DATABASE}", database=None)
        psql(f"\\i {REPO}/sql/bootstrap.sql")
        at = re.search(r"host=(\S+)", os.environ["VIRT_TEST_DATABASE_URL"]).group(1)
        secret(f"{self.work}/password", "pass")
        server = subprocess.Popen(
            self.server(f"{self.work}/password"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.stops.append(lambda: (server.stdin.close(), server.wait(30)))
        self.port = int(re.search(r"127\.0\.0\.1:(\d+)/sdk", server.stdout.readline()).group(1))
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(
                f'[database]\nurl = "host={at} user=virt_writer dbname={DATABASE}"\n'
                f'[database.owner]\nurl = "host={at} user=virt_owner dbname={DATABASE}"\n'
                '[admin]\nlisten = "127.0.0.1:0"\n[collection]\ndiscovery_interval = "20s"\n'
                f'{self.configuration}'
                f'[[platform]]\nname = "interop"\ntype = "{self.kind}"\nhost = "127.0.0.1"\nport = {self.port}\n'
                'user = "user"\npassword_file = "password"\ntls_verify = false\n')
        self.command("migrate")
        if "[api]" in self.configuration:
            self.command("key", "init")
        self.log = open(f"{self.work}/log", "w", encoding="utf-8")
        self.stops.append(self.log.close)
        collector = subprocess.Popen([BINARY, "run", "--config", self.config], stdout=self.log, stderr=self.log)
        self.stops.append(lambda: (collector.terminate(), collector.wait(60)))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = SmartConnect(host="127.0.0.1", port=self.port, user="user", pwd="pass", sslContext=context)
        self.stops.append(lambda: Disconnect(connection))
        self.content = connection.RetrieveContent()

    def __exit__(self, *_):
        for stop in reversed(self.stops):
            stop()
        self.directory.cleanup()

    def command(self, *arguments):
        """What a command of virt-collector prints."""
        return subprocess.run(
            [BINARY, *arguments, "--config", self.config], check=True, stdout=subprocess.PIPE, text=True).stdout

    def machines(self):
        view = self.content.viewManager.CreateContainerView(self.content.rootFolder, [vim.VirtualMachine], True)
        machines = list(view.view)
        view.Destroy()
        return machines
