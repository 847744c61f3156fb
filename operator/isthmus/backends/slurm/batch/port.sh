# ---- The port. Jobs of one user on one node hold a lock on theirs, because an engine opens its port
# only after minutes of loading; the first guess depends on the job id.

# The lines of all sockets that listen at a port. Read once a second for minutes: one process.
sockets_at() {
  local isthmus_hex
  printf -v isthmus_hex ':%04X' "$1"
  grep -hsE "^ *[0-9]+: [0-9A-F]+$isthmus_hex [0-9A-F:]+ 0A " /proc/net/tcp /proc/net/tcp6
}

listening() { sockets_at "$1" >/dev/null; }

lock_port() {
  local isthmus_folder="/tmp/isthmus-ports-$UID"
  mkdir -m 700 -- "$isthmus_folder" 2>/dev/null
  if [ -d "$isthmus_folder" ] && [ -O "$isthmus_folder" ] && [ ! -L "$isthmus_folder" ] &&
    [ ! -L "$isthmus_folder/$1" ]; then
    { exec {isthmus_port_lock}>"$isthmus_folder/$1"; } 2>/dev/null ||
      exec {isthmus_port_lock}>/dev/null
  else
    exec {isthmus_port_lock}>/dev/null
  fi
  # Without a lock to be had the job id alone must do.
  [ -f "/dev/fd/$isthmus_port_lock" ] || return 0
  flock -n "$isthmus_port_lock" 2>/dev/null || [ $? -eq 127 ] ||
    { exec {isthmus_port_lock}>&-; return 1; }
}

find_port() {
  local isthmus_size=$((isthmus_port_to - isthmus_port_from + 1)) isthmus_i
  for ((isthmus_i = 0; isthmus_i < isthmus_size; isthmus_i++)); do
    isthmus_engine_port=$((isthmus_port_from + (isthmus_job_id * 37 + isthmus_i) % isthmus_size))
    if ! listening "$isthmus_engine_port" && lock_port "$isthmus_engine_port"; then return; fi
  done
  fail 78 "all ports from $isthmus_port_from to $isthmus_port_to are taken on this node"
}
