"""Put first on a process's path: every audit event that could be code from data goes, with its time, to AUDIT_LOG."""

import os
import sys
import time

_WATCHED = (
    *("pickle.", "marshal.", "shelve.", "code.", "compile", "exec", "import", "ctypes.dlopen"),
    *("os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "subprocess."),
)
_LOG = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _note(event: str, arguments: object) -> None:
    if event.startswith(_WATCHED):
        line = f"{time.time()} {os.getpid()} {event} {str(arguments)[:160]!r}\n"
        os.write(_LOG, line.encode("ascii", "backslashreplace"))


sys.addaudithook(_note)
