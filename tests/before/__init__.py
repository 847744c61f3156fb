"""That each fault which was found is one of the commit it was found in, and none of this tree.

The tests named in docs/security.md and docs/reliability.md import what that commit does not have,
so there they would fail whatever they show. Here each finding is a question that both trees can
answer: a rendered script or pod, Envoy's configuration, what a function says to an input that was
recorded. `python -m tests.before` asks both, each question in a process of its own.
"""
