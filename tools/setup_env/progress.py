"""One step of set-up: run a command, log its output, show how far it is."""

import contextlib
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


class Step:
    """One step of set-up: runs a command, keeps its output in the log, shows how far it is."""

    def __init__(self, title: str, log: Path, lock: int) -> None:
        self.log = log
        self.lock = lock
        self.now = ""  # what it is doing
        self.share = None  # type: float | None  # how much of it is done, where that is known
        self.started = time.time()
        self.last_print = self.started
        self.last_tenth = 0
        self.rewrites = sys.stdout.isatty()
        print("- " + title, flush=True)

    def run(self, command: "list[str]", environment: "dict[str, str]") -> "tuple[int, list[str]]":
        """Run a command; return its exit status and its last lines."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # its compilers end with it
            pass_fds=(self.lock,),
        )
        lines = queue.Queue()  # type: queue.Queue

        def pump() -> None:
            for raw in process.stdout:
                lines.put(raw.decode("utf-8", "replace").rstrip())
            lines.put(None)

        threading.Thread(target=pump, daemon=True).start()
        tail = []  # type: list[str]
        try:
            with self.log.open("a", encoding="utf-8", buffering=1) as log:
                log.write("\n$ {}\n".format(" ".join(shlex.quote(word) for word in command)))
                while True:
                    try:
                        line = lines.get(timeout=1)
                    except queue.Empty:
                        self.show()
                        continue
                    if line is None:
                        return process.wait(), tail
                    if not self.read(line):
                        log.write(line + "\n")
                        tail = ([*tail, line])[-200:]
                    self.show()
        finally:
            end_group(process)
            if self.rewrites:
                print("\r\033[K", end="", flush=True)

    def read(self, line: str) -> bool:
        """Take one line of pip's output; return True if it is progress and no more."""
        progress = re.match(r"\s*Progress (\d+) of (\d+)", line)
        if progress:
            here, total = int(progress.group(1)), int(progress.group(2))
            what = self.now.split(": ")[0]
            if total > 5e6:
                self.now = f"{what}: {here / 1e6:.0f} of {total / 1e6:.0f} MB"
            return True
        ninja = re.match(r"\s*\[(\d+)/(\d+)\]", line)
        cmake = re.match(r"\s*\[ *(\d+)%\]", line)
        if ninja:
            self.share = int(ninja.group(1)) / max(1, int(ninja.group(2)))
            self.now = "compiled {} of {} files".format(*ninja.groups())
        elif cmake:
            self.share = int(cmake.group(1)) / 100.0
            self.now = "compiling"
        elif line.strip().startswith(("Downloading ", "Using cached ")):
            self.now = "downloading " + re.split(r"[-/]", line.split()[1])[0]
        elif line.startswith("Collecting "):
            self.now = "looking up " + re.split(r"[=<>!~\[; ]", line.split()[1])[0]
        elif line.startswith("Installing collected packages"):
            self.now = "installing {} packages".format(line.count(",") + 1)
        return False

    def show(self) -> None:
        """Rewrite the line on a terminal; elsewhere print one every ten percent or half minute."""
        elapsed = time.time() - self.started
        if self.rewrites:
            if time.time() - self.last_print < 0.1:
                return
            text = f"  {clock(elapsed)}  {self.now}"
            if self.share is not None:
                text += f"  {self.share:.0%}"
            print("\r\033[K" + text[: shutil.get_terminal_size().columns - 1], end="", flush=True)
            self.last_print = time.time()
            return
        tenth = int((self.share or 0) * 10)
        if tenth > self.last_tenth or (self.share is None and time.time() - self.last_print >= 30):
            percent = "" if self.share is None else f"  {self.share:.0%}"
            print(f"  {clock(elapsed)}  {self.now}{percent}", flush=True)
            self.last_tenth = tenth
            self.last_print = time.time()

    def done(self, note: str = "done") -> None:
        """Close the step with how long it took."""
        print(f"  {clock(time.time() - self.started)}  {note}", flush=True)


def end_group(process: subprocess.Popen) -> None:
    """End a command and all it started; nothing happens if it has ended by itself."""
    if process.poll() is not None:
        return
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal_number)
        try:
            process.wait(timeout=5)
            return
        except subprocess.TimeoutExpired:
            continue


def clock(seconds: float) -> str:
    """Return seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
