"""The kernel's filter machine in Python, as far as our filters go, for other processors' ones."""

from collections.abc import Sequence

from localseek.airgap import seccomp
from localseek.airgap.kernel import Processor
from localseek.airgap.seccomp import Step


def run(steps: Sequence[Step], audit: int, number: int, *words: int) -> int:
    """Give 0 for a system call that passes, else the error that it fails with."""
    data = {seccomp.NUMBER: number, seccomp.ARCHITECTURE: audit}
    data |= {seccomp.ARGUMENTS + 8 * place: word for place, word in enumerate(words)}
    at = held = 0
    while True:
        code, yes, no, operand = steps[at]
        at += 1
        if code == seccomp.LOAD:
            held = data.get(operand, 0)
        elif code == seccomp.AND:
            held &= operand
        elif code == seccomp.RETURN:
            return 0 if operand == seccomp.ALLOW else operand & 0xFFFF
        else:
            met = {
                seccomp.EQUAL: held == operand,
                seccomp.AT_LEAST: held >= operand,
                seccomp.ANY_BIT: bool(held & operand),
            }[code]
            at += yes if met else no


def outcome(here: Processor, name: str, *words: int, unix: bool = False, tcp: bool = False) -> int:
    """Give what the engine's filter does with a system call of a processor."""
    return run(seccomp.program(here, unix, tcp), here.audit, here.calls[name], *words)
