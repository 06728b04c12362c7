"""Measure what findings claim: rebuild the flagged layers in a child process and judge the numbers.

Only layers are rebuilt, from arguments known statically; unless models are asked for, the linted code is neither
imported nor run. No framework is imported in this process. This module stays light, because the command line imports
it for ``DEVICES`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bnlint.errors import UsageError

if TYPE_CHECKING:
    from bnlint.cache import ResultCache
    from bnlint.finding import Finding, Verification
    from bnlint.verify.plan import Place

#: ``auto`` is CUDA or ROCm where there is one, then MPS, else the CPU.
DEVICES = ("auto", "cpu", "cuda", "mps")

#: Seconds that one framework's child process may take, its import included.
TIME_LIMIT = 120.0
LONGEST_TIME_LIMIT = 86_400.0


def verify(
    findings: Sequence[Finding],
    device: str = "auto",
    time_limit: float = TIME_LIMIT,
    *,
    models: bool = False,
    plots: bool = False,
    cache: ResultCache | None = None,
) -> list[Finding]:
    """Return the findings, in their order, each with its ``Verification``.

    With ``models`` the project's own model classes are built and measured as well, which runs code of theirs
    (``bnlint.verify.models``).

    ``device`` is one of ``DEVICES``; ``time_limit`` is in seconds, for each framework's child process as a
    whole; ``plots`` asks for pictures as well; what the ``cache`` knows is not measured again. Whatever cannot be
    measured becomes *inconclusive* with the reason; nothing but a wrong ``device`` or ``time_limit`` raises
    (``UsageError``).
    """
    if device not in DEVICES:
        raise UsageError(f"unknown device {device!r}; choose one of {', '.join(DEVICES)}")
    if not 0 < time_limit <= LONGEST_TIME_LIMIT:
        raise UsageError(f"the time limit must be above 0 and at most a day, in seconds, not {time_limit:g}")
    from bnlint.verify.importing import isolated_path
    from bnlint.verify.plan import plan
    from bnlint.verify.recall import Recall

    planned = plan(findings)
    path = isolated_path(finding.location.path for finding in findings)
    recall = Recall(cache, path, device, plots)
    answers = {framework: recall.look_up(experiments) for framework, experiments in planned.batches.items()}
    missing = {
        framework: [number for number, answer in enumerate(known) if answer is None]
        for framework, known in answers.items()
        if None in known
    }
    if missing:
        from bnlint.verify.runner import run

        asked = {
            framework: [planned.batches[framework][number] for number in missing[framework]] for framework in missing
        }
        for framework, measured in run(asked, device, time_limit, path, plots).items():
            for number, experiment, (answer, lasts) in zip(missing[framework], asked[framework], measured, strict=True):
                answers[framework][number] = answer
                if lasts:
                    recall.keep(experiment, answer)
    verified = [
        finding.verified(_answer(answers, place)) for finding, place in zip(findings, planned.places, strict=True)
    ]
    if models:
        from bnlint.verify.models.process import verify_models

        return verify_models(verified, device, path, recall)
    return verified


def _answer(answers: Mapping[str, Sequence[Verification | None]], place: Place) -> Verification:
    if not isinstance(place, tuple):
        return place
    answer = answers[place[0]][place[1]]
    assert answer is not None
    return answer
