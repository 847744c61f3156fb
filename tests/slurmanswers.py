"""Fakes of squeue and sinfo in bash: each answer has the mark of the question that was asked.

Texts are written with plain ends of fields and records; the fake puts its caller's mark into them.
"""

import shlex

FIELD_END = "\x1f"
RECORD_END = "\x1f\x1e\n"


def printing(output: str) -> str:
    """Lines of bash that print it with the mark in the fake's own arguments, if there is one."""
    return (
        f"said={shlex.quote(output)}\n"
        "[[ $* =~ :($'\\x1f'[0-9a-f]+) ]] && said=${said//$'\\x1f'/${BASH_REMATCH[1]}}\n"
        'printf %s "$said"'
    )
