"""Engine simulators: `vllm serve` and `sglang serve` without a GPU, quirks included.

The playground runs them in pods and SLURM jobs in place of the real engines. They take the real
command lines and behave as vLLM 0.32.0 and SGLang 0.5.23 were measured to behave: before they are
ready, while they drain, when they crash. Standard library only, because they run under a bare
`/usr/bin/python3` (3.11 or newer) inside minimal images; `install` copies them there.

The package is apart from the operator: nothing here imports it, and it imports nothing from here.
"""
