"""Where the engines come from: Debian's redis-server, Java and Maven, and Cassandra's own jars from Maven.

Debian has no package of Cassandra, but the server is an ordinary Maven artifact: its jars and a Java 17 are all of it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engines import FOLDER, EngineUnavailable

CONF = Path(__file__).parent / "conf"
JAVA_MIN = 17
# Programs, and the Debian packages that bring them.
REDIS = {"redis-server": "redis-server"}
CASSANDRA = {"java": "default-jre-headless", "mvn": "maven"}
APT_SECONDS = 600
MAVEN_SECONDS = 300
POLICY = Path("/usr/sbin/policy-rc.d")


def cassandra_version() -> str:
    found = re.search(r"<cassandra.version>(.+?)</", (CONF / "pom.xml").read_text("utf-8"))
    assert found, "pom.xml names no version"
    return found[1]


def jars() -> Path:
    """The folder of Cassandra's jars, whether it is there yet or not."""
    return FOLDER / "lib" / cassandra_version()


def java() -> str:
    """The java program.

    Raises:
        EngineUnavailable: there is none, or an older one than Cassandra 5.0 and its options need.
    """
    found = shutil.which("java")
    if found is None:
        raise EngineUnavailable(f"no Java {JAVA_MIN} is installed here")
    shown = subprocess.run([found, "-version"], capture_output=True, text=True, check=False, timeout=30).stderr
    version = re.search(r'version "(\d+)', shown)
    if version is None or int(version[1]) < JAVA_MIN:
        raise EngineUnavailable(f"Java {JAVA_MIN} is asked for, and here is {shown.partition(chr(10))[0] or 'another'}")
    return found


def install_programs(programs: dict[str, str]) -> None:
    """Install the Debian packages of those programs that are missing.

    Raises:
        EngineUnavailable: that takes Debian (or a relative) and root, or it went wrong.
    """
    with locked(FOLDER / "install.lock"):
        missing = [package for program, package in programs.items() if shutil.which(program) is None]
        if missing:
            _apt_get(missing)


def _apt_get(missing: list[str]) -> None:
    wanted = " ".join(missing)
    if shutil.which("apt-get") is None:
        raise EngineUnavailable(f"{wanted}: not installed, and there is no apt-get here")
    if os.geteuid() != 0:
        raise EngineUnavailable(f"{wanted}: not installed; as root: apt-get install {wanted}")
    with no_services():
        for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
            done = subprocess.run(
                ["apt-get", *words],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=APT_SECONDS,
            )
            # An update that fails in part may still know the package.
            if done.returncode and words[0] == "install":
                raise EngineUnavailable(f"apt-get install {wanted}: {done.stderr.strip()[-500:]}")


@contextmanager
def no_services() -> Iterator[None]:
    """Debian starts a service as it installs it, unless this file says no; tests want programs, not services."""
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n", "utf-8")
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink()


def install_jars() -> Path:
    """Fetch Cassandra's jars (98 files, 67 MB) unless they are here; the folder of them.

    Raises:
        EngineUnavailable: no Java, no Maven, or Maven cannot fetch them.
    """
    target = jars()
    java()
    with locked(FOLDER / "install.lock"):
        if target.is_dir():
            return target
        maven = shutil.which("mvn")
        if maven is None:
            raise EngineUnavailable("Cassandra's jars are not here, and no Maven to fetch them is installed")
        part = target.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
        # Batch, quiet, and a download whose checksum is wrong is an error.
        command = [
            maven,
            "-B",
            "-q",
            "-Dstyle.color=never",
            "-C",
            "-f",
            str(CONF / "pom.xml"),
            goal,
            f"-DoutputDirectory={part}",
        ]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=MAVEN_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise EngineUnavailable(f"Maven did not fetch Cassandra's jars in {MAVEN_SECONDS} s") from None
        if done.returncode:
            shutil.rmtree(part, ignore_errors=True)
            raise EngineUnavailable(f"Maven cannot fetch Cassandra's jars: {done.stdout.partition(chr(10))[0][:500]}")
        part.rename(target)
    return target


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time; the system lets go of the lock when its holder ends, however it ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
