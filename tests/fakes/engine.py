"""An engine child without a model: speaks engine/protocol.py's lines, does what prompts say.

The words of the last prompt choose the behaviour: `echo` answers with the request and the load
options as JSON, `die` ends the process in the middle of the answer, `forever` streams until it is
cancelled, `lines N` streams so many, `fail` fails, `refuse` finds the request wrong, `escape` sends
control characters, `length` ends at the limit, `withdraw` finds its answer to be reasoning,
`ponder` never answers, `die-once FILE` dies unless FILE exists, `tail FILE` makes FILE and stops of
itself when it is cancelled, `fail-later FILE` refuses if FILE exists and else makes it. FAKE_ENGINE
makes the load fail or hang.
"""

import json
import os
import queue
import sys
import threading
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from localseek.engine.process import protocol
from localseek.events import (
    AnswerDelta,
    AnswerWithdrawn,
    DraftStats,
    Event,
    Failed,
    Finished,
    Notice,
    PromptProgress,
    ReasoningDelta,
    Stats,
)  # fmt: skip
from localseek.options import ModelInfo, Request

DRAFT = DraftStats(10, 10, 9, [0.9], 1.0, 1.9)
STATS = Stats(12, 4, 100.0, 19, 9, 42.5, 0.5, 31, 2048, DRAFT)


class Child:
    def __init__(self) -> None:
        self.inbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.cancelled: dict[int, threading.Event] = defaultdict(threading.Event)
        self.load: dict[str, Any] = {}
        self.writing = threading.Lock()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        for line in sys.stdin.buffer:
            message = protocol.decode(line)
            if message["op"] == "cancel":
                self.cancelled[message["request"]].set()
            else:
                self.inbox.put(message)
        self.inbox.put(None)

    def send(self, line: bytes) -> None:
        with self.writing:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()

    def main(self) -> None:
        while (message := self.inbox.get()) is not None and message["op"] != "quit":
            if message["op"] == "load":
                self.on_load(message)
            if message["op"] == "keep":
                self.send(protocol.encode({"event": "kept", "name": ""}))
            if message["op"] == "generate":
                answer = Answer(self, message["request"], protocol.decode_request(message))
                if self.load["parallel"] > 1:
                    threading.Thread(target=answer.run, daemon=True).start()
                else:
                    answer.run()

    def on_load(self, message: dict[str, Any]) -> None:
        self.load = {k: v for k, v in message.items() if k != "op"}
        behaviour = os.environ.get("FAKE_ENGINE", "")
        once = behaviour.removeprefix("load-once ")
        if behaviour == "load-fails" or (once != behaviour and Path(once).exists()):
            self.send(protocol.encode({"event": "Failed", "message": "No memory.", "hint": "Buy."}))
            return
        if behaviour == "load-refuses":
            failed = Failed("There is no device 'X'.", "There is: CPU.", wrong_use=True)
            self.send(protocol.encode_event(0, failed))
            return
        if once != behaviour:
            Path(once).touch()
        if behaviour == "load-dies":
            os.abort()
        if behaviour == "load-hangs":
            print("loading", file=sys.stderr, flush=True)
            threading.Event().wait()
        self.send(protocol.encode({"event": "loading", "done": 0.5}))
        info = ModelInfo(
            message["model"], "fake", "llama", "fake", 1, 1, 2048, 2048, drafting=False,
            thinks=True, parallel=max(1, message["parallel"]),
        )  # fmt: skip
        self.send(protocol.encode({"event": "loaded", "info": asdict(info)}))


class Answer:
    def __init__(self, child: Child, number: int, request: Request) -> None:
        self.child, self.number, self.request = child, number, request
        self.cancelled = child.cancelled[number]

    def event(self, event: Event) -> None:
        self.child.send(protocol.encode_event(self.number, event))

    def run(self) -> None:
        request = self.request
        prompt = request.messages[-1].content
        word, _, rest = prompt.partition(" ")
        self.event(PromptProgress(6, 12))
        self.event(PromptProgress(12, 12))
        if word == "echo":
            self.event(
                AnswerDelta(json.dumps({"request": asdict(request), "load": self.child.load}))
            )
        elif word == "say":
            self.event(AnswerDelta(rest))
        elif word == "fail-later" and not Path(rest).exists():
            Path(rest).touch()
            self.event(AnswerDelta("fine"))
        elif word in ("fail", "fail-later"):
            self.event(Failed("The prompt has 9,000 tokens, the context 2,048.", "Try --ctx."))
            return
        elif word == "refuse":
            self.event(Failed("The grammar is wrong.", wrong_use=True))
            return
        elif word == "notice":
            self.event(Notice("The context is nearly full."))
            self.event(AnswerDelta("42"))
        elif word == "withdraw":  # told not to reason, it does so all the same
            self.event(AnswerDelta("2 and 2"))
            self.event(AnswerWithdrawn())
            self.event(AnswerDelta("    4"))
        elif word == "ponder":
            self.event(ReasoningDelta("Hm."))
        elif word == "escape":
            self.event(ReasoningDelta("a\x1b[31mb"))
            self.event(AnswerDelta("c\x1b]0;title\x07\u202ed\x9b"))
        elif word == "die" or (word == "die-once" and not Path(rest).exists()):
            self.event(AnswerDelta("half an ans"))
            if rest:
                Path(rest).touch()
            os.kill(os.getpid(), 9)
        elif word == "tail":
            self.event(AnswerDelta("all but the end"))
            Path(rest).touch()
            self.cancelled.wait()
        elif word in ("forever", "long", "lines"):
            self.forever({"long": 4000, "lines": int(rest or 0), "forever": None}[word])
            return
        else:
            self.event(ReasoningDelta("Let me "))
            self.event(ReasoningDelta("think."))
            self.event(AnswerDelta("The answer "))
            self.event(AnswerDelta("is 605."))
        self.event(Finished("length" if word == "length" else "stop", STATS))

    def forever(self, lines: int | None) -> None:
        self.event(ReasoningDelta("Hm."))
        count = 0
        while not self.cancelled.wait(0.001) and (lines is None or count < lines):
            self.event(AnswerDelta(f"line {count}\n"))
            count += 1
        self.event(Finished("cancelled" if self.cancelled.is_set() else "stop", STATS))


if __name__ == "__main__":
    Child().main()
