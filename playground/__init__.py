"""A real Kubernetes and a real SLURM cluster on one machine, for the demonstration and the tests.

It is no part of the installed package: it needs root, Debian and Go, and starts real daemons
(etcd, kube-apiserver, kubelet, containerd, slurmctld, slurmd, sshd) in network namespaces. The
engines are simulators (`playground.engines`); everything else is the genuine program.

`playground.cluster` is the entry: `Playground(Config(...)).up()`.
"""
