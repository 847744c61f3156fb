"""The configuration files of the SLURM cluster, as text. Pure, so that they can be read and tested.

One slurm.conf serves SLURM 22.05 to 26.05. The choices that are not obvious:

* `config_overrides`: nodes may claim more processors and memory than the machine has.
* GPUs must be character devices, or CUDA_VISIBLE_DEVICES is not set in jobs.
* SlurmdTimeout of 10 and less makes slurmctld take healthy nodes down too.
* ReturnToService=1: with 2 an administrator's `state=down` lasts two seconds only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from playground.config import Config, Names, slurm_node_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things lie, and what the machine says of itself.

    Attributes:
        root: folder of this SLURM cluster, below the state folder.
        hostname: of the machine: slurmctld insists on it.
        version: of the installed SLURM, such as (22, 5).
    """

    root: Path
    hostname: str
    version: tuple[int, int]

    @property
    def configuration(self) -> Path:
        """The main file, which SLURM_CONF names."""
        return self.root / "etc" / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        """Of the cluster's own munged."""
        return self.root / "run" / "m" / "munge.socket"

    @property
    def rest_socket(self) -> Path:
        """Of the slurmrestd without tokens."""
        return self.root / "run" / "rest" / "slurmrestd.sock"

    @property
    def jwt_key(self) -> Path:
        """Signs the tokens of slurmrestd."""
        return self.root / "etc" / "jwt_hs256.key"


def controller_port(names: Names) -> int:
    """Of slurmctld."""
    return names.slurm_base + 1


def rest_port(names: Names) -> int:
    """Of slurmrestd, with tokens, on 127.0.0.1."""
    return names.slurm_base + 3


def ssh_port(names: Names) -> int:
    """Of sshd on the login node and on each compute node."""
    return names.slurm_base + 4


def node_address(names: Names, number: int) -> str:
    """Of the SLURM node with this number (from 1)."""
    return f"{names.slurm_subnet}.{10 + number}"


def slurm_conf(config: Config, names: Names, layout: Layout) -> str:
    """slurm.conf."""
    nodes = slurm_node_names(config)
    every = f"gpu[01-{config.slurm_nodes:02}]"
    prefix = config.slurm_prefix
    lines = [
        *([f"PluginDir={prefix / 'lib' / 'slurm'}"] if prefix else []),
        *_daemon_lines(config, names, layout),
        *_behaviour_lines(config, layout),
        *(_node_line(config, names, number) for number in range(1, len(nodes) + 1)),
        f"PartitionName=gpu Nodes={every} Default=YES MaxTime=7-00:00:00 DefaultTime=01:00:00 "
        "PriorityTier=10 PreemptMode=OFF State=UP",
        f"PartitionName=spot Nodes={every} MaxTime=1-00:00:00 DefaultTime=00:30:00 "
        "PriorityTier=1 PreemptMode=REQUEUE State=UP",
        f"PartitionName=spotcancel Nodes={every} MaxTime=1-00:00:00 DefaultTime=00:30:00 "
        "PriorityTier=1 PreemptMode=CANCEL State=UP",
        "PartitionName=short Nodes=gpu01 MaxTime=00:10:00 DefaultTime=00:01:00 "
        "PriorityTier=10 PreemptMode=OFF State=UP",
        *(line for line in config.slurm_conf.splitlines() if line.strip()),
    ]
    return "\n".join(lines) + "\n"


def _daemon_lines(config: Config, names: Names, layout: Layout) -> list[str]:
    root = layout.root
    return [
        f"ClusterName=playground{names.instance}",
        f"SlurmctldHost={layout.hostname}({names.slurm_subnet}.1)",
        f"SlurmctldPort={controller_port(names)}",
        "SlurmUser=slurm",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={layout.munge_socket},cred_expire={config.credential_lifetime}",
        "AuthAltTypes=auth/jwt",
        f"AuthAltParameters=jwt_key={layout.jwt_key}",
        f"StateSaveLocation={root}/controller",
        f"SlurmdSpoolDir={root}/spool/%n",
        f"SlurmctldPidFile={root}/run/slurm/slurmctld.pid",
        f"SlurmdPidFile={root}/run/slurmd-%n.pid",
        f"SlurmctldLogFile={root}/log/slurmctld.log",
        f"SlurmdLogFile={root}/spool/slurmd-%n.log",
        "SlurmctldDebug=info",
        "SlurmdDebug=info",
        "LogTimeFormat=iso8601_ms",
        "JobCompType=jobcomp/filetxt",
        f"JobCompLoc={root}/log/jobcomp.log",
    ]


def _behaviour_lines(config: Config, layout: Layout) -> list[str]:
    plain = ["TaskPlugin=task/none", "SwitchType=switch/none"]
    plain.append("JobAcctGatherType=jobacct_gather/none")
    return [
        "MailProg=/bin/true",
        "MpiDefault=none",
        "ProctrackType=proctrack/linuxproc",
        *([] if layout.version >= (23, 11) else plain),
        "SlurmdParameters=config_overrides",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "GresTypes=gpu",
        "ReturnToService=1",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2",
        f"SlurmctldTimeout={config.slurmd_timeout}",
        f"SlurmdTimeout={config.slurmd_timeout}",
        f"KillWait={config.kill_wait}",
        f"MinJobAge={config.min_job_age}",
        "MessageTimeout=10",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
    ]


def _node_line(config: Config, names: Names, number: int) -> str:
    name = slurm_node_names(config)[number - 1]
    first_half = number <= (config.slurm_nodes + 1) // 2
    features = "h100,nvlink,rackA" if first_half else "h100,pcie,rackB"
    gpus = f" Gres=gpu:h100:{config.gpus}" if config.gpus else ""
    return (
        f"NodeName={name} NodeHostname={name} NodeAddr={node_address(names, number)} "
        f"Port={names.slurm_base + 10} CPUs={config.cpus} Boards=1 SocketsPerBoard=2 "
        f"CoresPerSocket={config.cpus // 2} ThreadsPerCore=1 RealMemory={config.memory}{gpus} "
        f"Feature={features} State=UNKNOWN"
    )


def gres_conf(config: Config, layout: Layout) -> str:
    """gres.conf: the fake GPUs."""
    if not config.gpus:
        return "AutoDetect=off\n"
    devices = f"{layout.root}/dev/nvidia[0-{config.gpus - 1}]"
    nodes = f"gpu[01-{config.slurm_nodes:02}]"
    return f"AutoDetect=off\nNodeName={nodes} Name=gpu Type=h100 File={devices}\n"


def cgroup_conf(layout: Layout) -> str:
    """cgroup.conf: none are used. `disabled` is fatal for slurmd 22.05 and needed from 23.02 on."""
    plugin = "CgroupPlugin=disabled\n" if layout.version >= (23, 2) else ""
    return f"{plugin}ConstrainCores=no\nConstrainDevices=no\nConstrainRAMSpace=no\n"


def hosts(config: Config, names: Names, *, hostname: str) -> str:
    """/etc/hosts of the SLURM nodes; there is no DNS."""
    lines = ["127.0.0.1 localhost", f"{names.slurm_subnet}.1 {hostname} login"]
    for number, node in enumerate(slurm_node_names(config), start=1):
        lines.append(f"{node_address(names, number)} {node}")
    return "\n".join(lines) + "\n"


def sshd_config(
    config: Config,
    names: Names,
    layout: Layout,
    *,
    name: str,
    host_key: Path,
    listen: Sequence[str],
    max_sessions: int,
) -> str:
    """sshd_config of the login node or of a compute node; it runs as the job user.

    StrictModes is off, since the authorized keys lie below the sticky /var/tmp.
    """
    ssh = layout.root / "ssh"
    prefix = f"{config.slurm_prefix}/bin:" if config.slurm_prefix else ""
    path = f"{prefix}/usr/local/bin:/usr/bin:/bin"
    return "\n".join(
        [
            f"Port {ssh_port(names)}",
            *(f"ListenAddress {address}" for address in listen),
            "ClientAliveInterval 5",
            "ClientAliveCountMax 3",
            f"HostKey {host_key}",
            f"PidFile {ssh}/{name}.pid",
            f"AuthorizedKeysFile {ssh}/authorized_keys",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "AllowTcpForwarding yes",
            "AllowStreamLocalForwarding yes",
            "StreamLocalBindUnlink yes",
            "GatewayPorts clientspecified",
            "X11Forwarding no",
            f"MaxSessions {max_sessions}",
            "MaxStartups 200",
            "UseDNS no",
            "PrintMotd no",
            f"SetEnv SLURM_CONF={layout.configuration} PATH={path}",
            "Subsystem sftp internal-sftp",
            "",
        ]
    )
