"""A single Apache Kafka broker on loopback, from the jars that Maven fetches once."""

from __future__ import annotations

import base64
import fcntl
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from learners.errors import BrokerError
from streams.broker import check_port, free_port
from streams.processes import Watcher, how_it_ended
from streams.scratch import scratch_folder

__all__ = [
    "JAVA_NEEDED",
    "KAFKA_VERSION",
    "ApacheKafka",
    "cache_folder",
    "fetch_jars",
    "find_java",
    "is_available",
    "java_version",
]

KAFKA_VERSION = "4.1.0"
JAVA_NEEDED = 17
STARTED = "Kafka Server started"

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>everlearn</groupId><artifactId>kafka-jars</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""

# Time never deletes what a topic holds unless the topic says so: replayed and imported events
# carry their own, old, times.
PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_dir}
log.retention.ms=-1
num.partitions=4
default.replication.factor=1
min.insync.replicas=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""


class ApacheKafka:
    """One KRaft broker (and controller) of Apache Kafka on 127.0.0.1, for tests and development.

    Parameters
    ----------
    port
        Port to listen on; 0 takes a free one.
    data
        Folder that keeps topics, settings and the broker's log; without one, a temporary folder
        that goes when the broker is closed.
    heap_megabytes
        Memory of the Java process.
    say
        Told once when jars must be fetched, because that takes a while.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        data: Path | None = None,
        heap_megabytes: int = 512,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.heap_megabytes = heap_megabytes
        self._say = say
        self._kept = ExitStack()
        folder = data or self._kept.enter_context(scratch_folder("kafka"))
        self.data = Path(folder).resolve()
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: Watcher | None = None
        self._code: int | None = None

    @property
    def log_file(self) -> Path:
        """What the Java process printed since its last start."""
        return self.data / "broker.log"

    @property
    def running(self) -> bool:
        """Whether the Java process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_seconds: float = 60.0) -> Self:
        """Start the broker, or start it again with the data it had; returns when it serves.

        Raises
        ------
        BrokerError
            Java or the jars are missing, or the broker ended or did not serve in time.
        """
        if self.running:
            return self
        java = _java(self._say)
        check_port(self.port)
        self.data.mkdir(parents=True, exist_ok=True)
        properties = self._write_properties()
        if not (self.data / "log" / "meta.properties").exists():
            self._format(java, properties)
        options = (
            f"-Xmx{self.heap_megabytes}m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        )
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [*java, *options, "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: we stop the broker in order
            )
        self._watcher = Watcher(self._process.pid)
        self._await_start(timeout_seconds)
        return self

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """Stop the broker in order; its data stays for `start`."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._end()

    def kill(self) -> None:
        """End the broker at once (SIGKILL), as a power cut would; its data stays for `start`."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def close(self) -> None:
        """Stop the broker and remove its data if the folder was temporary."""
        self.stop()
        self._kept.close()

    def why_ended(self) -> str:
        """Return how the Java process ended, and the line of its log that tells most about why."""
        code = self._code if self._process is None else self._process.poll()
        return f"{how_it_ended(code)}: {_last(_read(self.log_file))}"

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _end(self) -> None:
        """Forget the processes, which are about to end."""
        if self._watcher is not None:
            self._watcher.close()
        if self._process is not None:
            self._code = self._process.wait()
        self._process = self._watcher = None

    def _write_properties(self) -> Path:
        path = self.data / "server.properties"
        known = re.search(r"^controller.quorum.voters=1@127.0.0.1:(\d+)$", _read(path), re.M)
        text = PROPERTIES.format(
            port=self.port,
            controller_port=known[1] if known else free_port(),
            log_dir=self.data / "log",
        )
        path.write_text(text)
        return path

    def _format(self, java: list[str], properties: Path) -> None:
        cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        options = (f"--cluster-id={cluster}", "-c", str(properties))  # it may begin with a dash
        tool = ("kafka.tools.StorageTool", "format", *options)
        done = subprocess.run([*java, *tool], capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise BrokerError(
                f"Apache Kafka could not prepare {self.data}: {_last(done.stdout + done.stderr)}"
            )

    def _await_start(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while STARTED not in _read(self.log_file):
            if not self.running:
                self._end()
                raise BrokerError(
                    f"Apache Kafka ended at its start on port {self.port}, {self.why_ended()}"
                )
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerError(
                    f"Apache Kafka did not serve {self.address} within {timeout_seconds:g} s: "
                    f"{_last(_read(self.log_file))}"
                )
            time.sleep(0.05)


def cache_folder() -> Path:
    """Where fetched jars stay: EVERLEARN_CACHE, or everlearn in the user's cache folder."""
    if chosen := os.environ.get("EVERLEARN_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "everlearn"


def find_java() -> str | None:
    """Return the Java to run: that of JAVA_HOME, or the one on the PATH."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")


def java_version() -> int | None:
    """Return the major version of the Java found, or None."""
    java = find_java()
    if java is None:
        return None
    done = subprocess.run([java, "-version"], capture_output=True, text=True)  # noqa: S603
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(found[1]) if found else None


def is_available() -> str | None:
    """Return why Apache Kafka cannot run here, or None when it can (jars may need fetching)."""
    version = java_version()
    if version is None:
        return f"Java is missing: install Java {JAVA_NEEDED} or newer, or set JAVA_HOME"
    if version < JAVA_NEEDED:
        return f"Java {version} is too old: Apache Kafka {KAFKA_VERSION} needs {JAVA_NEEDED}"
    if not _jars().is_dir() and shutil.which("mvn") is None:
        return "Maven (mvn) is missing: install it; it fetches Apache Kafka's jars once"
    return None


def fetch_jars(say: Callable[[str], None] | None = None) -> Path:
    """Return the folder of Apache Kafka's jars, fetched with Maven at the first call.

    Raises
    ------
    BrokerError
        Java or Maven is missing, or Maven's repository does not give the jars.
    """
    if reason := is_available():
        raise BrokerError(f"Apache Kafka cannot run here: {reason}")
    jars = _jars()
    jars.parent.mkdir(parents=True, exist_ok=True)
    with (jars.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            if say:
                say(f"fetching Apache Kafka {KAFKA_VERSION} (43 MB, once, into {jars.parent}) ...")
            _run_maven(jars)
    return jars


def _run_maven(jars: Path) -> None:
    with tempfile.TemporaryDirectory(dir=jars.parent) as folder:
        (Path(folder) / "pom.xml").write_text(POM)
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise BrokerError(
                "Maven could not fetch Apache Kafka's jars (is a Maven repository reachable?): "
                f"{_last(done.stdout)}"
            )
        (Path(folder) / "libs").rename(jars)


def _java(say: Callable[[str], None] | None) -> list[str]:
    jars = fetch_jars(say)
    return [find_java() or "java", "-cp", f"{jars}/*"]


def _jars() -> Path:
    return cache_folder() / f"kafka-{KAFKA_VERSION}" / "libs"


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _last(text: str) -> str:
    """Return the line that says most: the last cause, else the first error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by")]
    errors = [line for line in lines if "ERROR" in line or "Exception" in line]
    return (causes[-1:] or errors[:1] or lines[-1:] or ["it printed nothing"])[0]
