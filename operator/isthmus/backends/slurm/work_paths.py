"""Where the files of an attempt are in its work directory: the claim and the keys.

Apart from who writes them (`work_folder.py`) and who reads them (the batch script). Each is named
after the whole job, not the attempt alone: several installations may share a folder.
"""


def claim_path(*, work_directory: str, job_name: str) -> str:
    """The symbolic link whose making is the claim of an attempt."""
    return f"{work_directory.rstrip('/')}/{job_name}.claim"


def key_path(*, work_directory: str, job_name: str) -> str:
    """Where the API key of an attempt waits for its job."""
    return f"{work_directory.rstrip('/')}/{job_name}.key"


def tunnel_key_path(*, work_directory: str, job_name: str) -> str:
    """Where the key with which an attempt calls its bastion waits for its job."""
    return f"{work_directory.rstrip('/')}/{job_name}.tunnel"
