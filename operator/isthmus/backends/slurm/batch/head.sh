#!/bin/bash
# The batch script of one Isthmus worker: one engine on one node.
# It claims its attempt, finds a free port, runs the engine in the background, publishes the port in
# the job's comment once the engine itself listens there, and passes TERM to the engine's main process
# alone, also by its own timer before the job's granted end. Exit codes of its own: 74 the work
# directory cannot be written, 75 the attempt was claimed by another start, 78 a module, a free port or
# the API key is missing.
#
# All its variables begin with isthmus_, also local ones: the site's set-up and modules and the engine's
# environment bring names of their own into this shell, and none of those begins so.
set -u
umask 077
export SLURM_EXPORT_ENV=ALL

# @CONSTANTS@
isthmus_engine_port=""
isthmus_key_file=""
isthmus_engine_command=()
isthmus_job_id=${SLURM_JOB_ID:?"this script runs under SLURM only"}
isthmus_start="$isthmus_job_id.${SLURM_RESTART_COUNT:-0}"
isthmus_claim="$isthmus_work_directory/$isthmus_job_name.claim"
isthmus_run_directory="$isthmus_work_directory/$isthmus_job_name/$isthmus_start"

say() { printf '%(%FT%T%z)T isthmus: %s\n' -1 "$*"; }
fail() {
  local isthmus_status=$1
  shift
  say "$*"
  exit "$isthmus_status"
}
