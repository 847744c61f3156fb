"""Options that users may not give, because Isthmus sets them: engine, environment and sbatch.

Apart from the models that use them, because each list is a fact of a program: the engines' from
the argument parsers of vLLM 0.33.0 and SGLang 0.5.23, sbatch's from its manual page (22.05 to
26.05).

Both parsers (argparse, getopt_long) take unambiguous abbreviations, so `--por 1` is `--port 1`.
The rules therefore refuse every prefix of a reserved option. That is exact only while no other
option is itself a prefix of a reserved one; a test holds the lists to it.
"""

from typing import Final

VLLM_RESERVED: Final = frozenset(
    {
        "--api-key",  # guards the endpoint; a key on a command line is visible to everybody
        "--config",  # a file may set any of the others
        "--grpc",  # replaces the HTTP server that we probe
        "--grpc-port",
        "--headless",  # no HTTP server at all
        "--help",
        "--hf-token",  # a secret on a command line; HF_TOKEN comes from a Secret
        "--host",
        "--master-addr",
        "--master-port",
        "--model",
        "--nnodes",
        "--node-rank",
        "--port",
        "--revision",  # model.revision
        "--root-path",  # moves the paths that we probe
        "--served-model-name",
        "--shutdown-timeout",  # belongs to the drain: 0 makes vLLM hang at SIGTERM
        "--ssl-ca-certs",
        "--ssl-certfile",  # probes and the Service speak plain HTTP
        "--ssl-keyfile",
        "--uds",  # listens on a socket file instead of a port
    }
)
"""Options of `vllm serve` that Isthmus sets or must not be set."""

SGLANG_RESERVED: Final = frozenset(
    {
        "--admin-api-key",
        "--api-key",
        "--config",
        "--dist-init-addr",
        "--enable-metrics",  # always on: idleness is read from the metrics
        "--fastapi-root-path",
        "--grpc-mode",
        "--grpc-port",
        "--help",
        "--host",
        "--model",
        "--model-path",
        "--nccl-init-addr",
        "--nnodes",
        "--node-rank",
        "--port",
        "--revision",
        "--served-model-name",
        "--smg-grpc-mode",
        "--ssl-ca-certs",
        "--ssl-certfile",
        "--ssl-keyfile",
        "--ssl-keyfile-password",
        "--weight-version",  # carries the attempt, by which we know whom we talk to
    }
)
"""Options of `sglang serve` that Isthmus sets or must not be set."""

ENGINE_RESERVED: Final = VLLM_RESERVED | SGLANG_RESERVED
"""Refused for both engines: no option of the one means something else to the other."""

ENGINE_RESERVED_SHORT: Final = "hnr"
"""Letters of vLLM's short forms of --help, --nnodes and --node-rank."""

RESERVED_ENVIRONMENT: Final = frozenset(
    {
        "BASH_ENV",  # would run in our batch script
        "CUDA_VISIBLE_DEVICES",  # the scheduler's: another value takes other people's GPUs
        "ENV",
        "HIP_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "VLLM_API_KEY",
        "VLLM_HOST_IP",
        "VLLM_PORT",
    }
)
"""Environment variables that Isthmus or the scheduler sets.

LD_PRELOAD, LD_LIBRARY_PATH and PATH are not among them: they reach only the engine's process
(allocators are commonly preloaded), and who chooses the model chooses the code anyway.
"""

READ_ONLY_ENVIRONMENT: Final = frozenset({"EUID", "PPID", "SHELLOPTS", "UID"})
"""Variables that bash lets nobody set, besides those that begin with BASH."""

SHELL_ENVIRONMENT: Final = READ_ONLY_ENVIRONMENT | {
    "COMP_WORDBREAKS",
    "DIRSTACK",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "FUNCNAME",
    "FUNCNEST",
    "GROUPS",
    "HISTCMD",
    "LINENO",
    "MAPFILE",
    "OPTIND",
    "PIPESTATUS",
    "POSIXLY_CORRECT",
    "RANDOM",
    "SECONDS",
    "SHLVL",
    "SRANDOM",
}
"""Variables that bash computes, or drops when they are set (manual of 5.2, "Shell Variables").

On SLURM a shell hands the environment to the engine. Of an integer one it would *run* the value.
"""

SHELL_ENVIRONMENT_PREFIX: Final = "BASH"
"""Beginning of the names of bash's other variables of that kind."""

RESERVED_ENVIRONMENT_PREFIXES: Final = ("ISTHMUS_", "SBATCH_", "SLURM_", "isthmus_")
"""Beginnings of names that belong to Isthmus, to SLURM and to the batch script."""

SBATCH_PROTECTED: Final = frozenset(
    {
        # identity and life of the job
        "--array",
        "--begin",
        "--comment",
        "--deadline",
        "--dependency",
        "--hold",
        "--job-name",
        "--kill-on-invalid-dep",
        "--no-requeue",
        "--requeue",
        "--signal",
        "--test-only",
        "--time",
        "--time-min",
        "--wait",
        # input, output and environment
        "--batch",
        "--bb",
        "--bbf",
        "--chdir",
        "--error",
        "--export",
        "--export-file",
        "--get-user-env",
        "--help",
        "--ignore-pbs",
        "--input",
        "--mail-type",
        "--mail-user",
        "--open-mode",
        "--output",
        "--parsable",
        "--quiet",
        "--usage",
        "--version",
        "--wrap",
        # another user, another cluster
        "--cluster",
        "--clusters",
        "--gid",
        "--uid",
        # fields of the pool
        "--account",
        "--partition",
        "--qos",
        # resources: worker and the SlurmCluster's site
        "--cpus-per-gpu",
        "--cpus-per-task",
        "--exclusive",
        "--gpus",
        "--gpus-per-node",
        "--gpus-per-socket",
        "--gpus-per-task",
        "--gres",
        "--mem",
        "--mem-per-cpu",
        "--mem-per-gpu",
        "--mincpus",
        "--nodefile",
        "--nodes",
        "--ntasks",
        "--ntasks-per-core",
        "--ntasks-per-gpu",
        "--ntasks-per-node",
        "--ntasks-per-socket",
        "--tres-per-job",
        "--tres-per-node",
        "--tres-per-socket",
        "--tres-per-task",
    }
)
"""Options of sbatch that Isthmus sets or must not be set."""


def joined(options: frozenset[str]) -> str:
    """Return the options as `|--a|--b|`, in which every prefix P of one is found as `|P`.

    An option that is a prefix of another is found in that one and left out: the API server
    charges a CEL rule by the length of its strings.
    """
    kept = [
        option
        for option in sorted(options)
        if not any(other != option and other.startswith(option) for other in options)
    ]
    return "|" + "|".join(kept) + "|"


def with_abbreviations(options: frozenset[str]) -> list[str]:
    """Return the options and every prefix of one, for a rule that looks for a word in a list.

    What the API server charges for that is the number of words, however long the word that is
    looked for may be; `joined` costs the product of both lengths.
    """
    return sorted({option[:end] for option in options for end in range(1, len(option) + 1)})


SBATCH_ALLOWED: Final = (
    "--begin",
    "--cluster-constraint",
    "--constraint",
    "--contiguous",
    "--core-spec",
    "--cores-per-socket",
    "--cpu-freq",
    "--deadline",
    "--exclude",
    "--exclusive",
    "--gpu-freq",
    "--gres-flags",
    "--hint",
    "--licenses",
    "--mem-bind",
    "--mincpus",
    "--nice",
    "--nodelist",
    "--oversubscribe",
    "--prefer",
    "--priority",
    "--reservation",
    "--segment",
    "--sockets-per-node",
    "--switches",
    "--thread-spec",
    "--threads-per-core",
    "--time-min",
    "--tmp",
    "--wckey",
)
"""What a user may add to sbatch; the rest is ours, has a field of its own, or runs something."""

_NUMBER: Final = "[0-9]{1,9}"
_MEMORY: Final = (
    "(quiet|verbose|none|local|prefer|nosort|sort|rank|((map|mask)_mem:)?[0-9a-fx*]{1,32})"
)
SBATCH_VALUES: Final = {
    "--core-spec": f"={_NUMBER}",
    "--cores-per-socket": f"={_NUMBER}",
    "--cpu-freq": "=[A-Za-z0-9_,:-]+",
    "--exclude": "=[^/]+",  # with a '/' it is a file of the login host, of which it tells
    "--gpu-freq": "=[A-Za-z0-9_,=]+",
    "--gres-flags": "=[a-z,-]+",
    "--hint": "=(compute_bound|memory_bound|multithread|nomultithread)",
    "--mem-bind": f"={_MEMORY}(,{_MEMORY})*",
    "--nice": f"(={_NUMBER})?",
    "--nodelist": "=[^/]+",
    "--priority": "=([0-9]{1,10}|TOP)",
    "--segment": f"={_NUMBER}",
    "--sockets-per-node": f"={_NUMBER}",
    "--switches": f"={_NUMBER}(@[0-9:-]{{1,20}})?",
    "--thread-spec": f"={_NUMBER}",
    "--threads-per-core": f"={_NUMBER}",
    "--tmp": "=[0-9]{1,12}[KMGTkmgt]?",
}
"""Options whose values sbatch itself judges, and what may follow their names; of RE2 and `re`.

From the manual page and from what sbatch refuses, 22.05 to 26.05. All others are words that
slurmctld knows or does not."""

SBATCH_VALUES_PATTERN: Final = (
    "^(" + "|".join(f"{name}{value}" for name, value in SBATCH_VALUES.items()) + ")$"
)
