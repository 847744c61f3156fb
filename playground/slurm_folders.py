"""The folders, secrets and fake GPUs of the SLURM cluster; SLURM is strict about their owners."""

import os
import stat
from pathlib import Path

from playground.config import Config, slurm_node_names
from playground.files import make_folder, make_secret


def make_folders(config: Config, root: Path) -> None:
    """Make what slurm.conf names: each daemon insists on owner and mode of its folder."""
    for folder in ("etc", "run", "spool", "dev"):
        make_folder(root / folder)
    for folder in ("controller", "log", "run/slurm"):
        make_folder(root / folder, owner="slurm")
    for folder in ("munge", "run/m"):
        make_folder(root / folder, owner="munge")
    for folder in ("run/rest", "ssh"):
        make_folder(root / folder, owner=config.user, mode=0o700)
    for node in slurm_node_names(config):
        make_folder(root / "spool" / node)
    make_secret(root / "munge" / "munge.key", size=1024, owner="munge", mode=0o400)
    make_secret(root / "etc" / "jwt_hs256.key", size=32, owner="slurm", mode=0o600)
    for number in range(config.gpus):
        device = root / "dev" / f"nvidia{number}"
        if not device.exists():  # as /dev/null: only character devices count as GPUs
            os.mknod(device, mode=stat.S_IFCHR | 0o666, device=os.makedev(1, 3))
            device.chmod(0o666)
