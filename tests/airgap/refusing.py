"""The engine child where the kernel refuses some system calls, as in a container that is locked.

`python refusing.py NAME[,NAME]… [ARGUMENT]…` lets them fail with EPERM, then becomes the engine.
"""

import errno
import os
import sys

from localseek.airgap import seccomp

if __name__ == "__main__":
    seccomp.install(seccomp.refusing(sys.argv[1].split(","), errno.EPERM))
    engine = [sys.executable, "-P", "-m", "localseek.engine", *sys.argv[2:]]
    os.execv(sys.executable, engine)
