"""The command line in a process of its own, with the fake engine in place of the real one."""

import sys
from pathlib import Path

from localseek import cli
from localseek.airgap.hook import begin_offline
from localseek.engine.process import client

client.program = lambda: [sys.executable, str(Path(__file__).with_name("engine.py"))]
sys.exit(cli.main(ready=begin_offline))
