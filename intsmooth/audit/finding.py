"""What the audit says: findings, each with a verdict, what it rests on and what is wrong, as text and as JSON."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# What kind of evidence stands behind a check, and for what it holds; docs/audit.md says more.
EVIDENCE = {
    "graph": ("inspection", "every tensor, constant and buffer of this model"),
    "overflow": ("proof", "this model, for every input and every noise"),
    "code": ("inspection", "every compiled function that this model uses, in this process"),
    "dynamic": ("observation", "the votes counted here, on this machine"),
    "equality": ("comparison", "the inputs compared here, on this machine"),
    "noise": ("recomputation", "every threshold of this table; the fit of the integers drawn here is a statistic"),
    "certificate": ("observation", "the certificate made here, and the entries derived again"),
    "kernels": ("comparison", "the inputs compared here, on this machine"),
    "statistics": ("comparison", "known budgets"),
}
_SHOWN = 20  # problems of one finding in the text; JSON has all of them


@dataclass(frozen=True)
class Finding:
    """One check. passed: True, False, or None where it cannot be made on this machine (which is not a pass).

    name: short; claim: what is shown; summary: by what, in a line; problems: everything that speaks against it;
    lines: more for people; details: plain values for JSON; kind: as in EVIDENCE, where that does not say it.
    """

    name: str
    claim: str
    passed: bool | None
    summary: str
    problems: Sequence[str] = ()
    lines: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    kind: tuple[str, ...] = ()

    @property
    def evidence(self) -> dict[str, str]:
        """kind: what kind of evidence this is; holds_for: what it covers."""
        return dict(zip(("kind", "holds_for"), self.kind or EVIDENCE.get(self.name, ()), strict=False))


@dataclass(frozen=True)
class Report:
    """All findings about a model on this machine. head: what was audited, name -> text."""

    head: Mapping[str, str]
    findings: Sequence[Finding]

    @property
    def passed(self) -> bool:
        """Whether no check failed and at least one was made."""
        verdicts = [finding.passed for finding in self.findings]
        return True in verdicts and False not in verdicts

    def text(self, what: str = "audit") -> str:
        """For people: a paragraph per finding; `what` begins the verdict in the last line."""
        width = max(map(len, self.head), default=0)
        parts = [f"{name:<{width}}  {value}" for name, value in self.head.items()]
        for finding in self.findings:
            verdict = {True: "pass", False: "FAIL", None: "not possible here"}[finding.passed]
            kind = f", by {finding.evidence['kind']}" if finding.passed and finding.evidence else ""
            parts += ["", f"{finding.name}: {verdict}{kind}. Claim: {finding.claim}."]
            parts += _wrapped(finding.summary)
            parts += [f"    ! {problem}" for problem in finding.problems[:_SHOWN]]
            if len(finding.problems) > _SHOWN:
                parts.append(f"    ! ... and {len(finding.problems) - _SHOWN} more (--json lists all)")
            for line in finding.lines:
                parts += _wrapped(line)
        failed = [finding.name for finding in self.findings if finding.passed is False]
        if not self.findings:
            failed = ["nothing was checked"]
        return "\n".join([*parts, "", f"{what} failed: {', '.join(failed)}" if failed else f"{what} passed"])

    def json(self) -> str:
        """For programs: the same, with every detail."""
        findings = [
            {
                "name": finding.name,
                "claim": finding.claim,
                "passed": finding.passed,
                "evidence": finding.evidence,
                "summary": finding.summary,
                "problems": list(finding.problems),
                "details": finding.details,
            }
            for finding in self.findings
        ]
        head = {"format": "intsmooth audit, version 1", **self.head}
        return json.dumps({**head, "passed": self.passed, "findings": findings}, indent=1, ensure_ascii=False)


def _wrapped(line: str) -> list[str]:
    """Long lines folded; tables (lines that begin with a space) as they are."""
    if line.startswith(" "):
        return ["   " + line]
    return textwrap.wrap(line, 116, initial_indent="    ", subsequent_indent="        ")
