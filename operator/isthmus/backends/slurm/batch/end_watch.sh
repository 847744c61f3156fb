granted_end() {
  local isthmus_end
  isthmus_end=$(SLURM_TIME_FORMAT=%s timeout -k 5 30 squeue -h -j "$isthmus_job_id" -o %e \
    2>/dev/null) || return 1
  [ -n "$isthmus_end" ] || return 1
  case $isthmus_end in *[!0-9]*) echo none ;; *) echo "$isthmus_end" ;; esac
}

# Ends the engine in time when the operator does not. The end is read again when the time has come:
# an administrator may have moved it. (If it was moved closer, SLURM's USR1 comes in time.) Of a
# short job the lead is at most half of what it was granted.
watch_end() {
  local isthmus_end isthmus_now isthmus_lead=""
  while :; do
    until isthmus_end=$(granted_end); do pause 60; done
    [ "$isthmus_end" != none ] || return
    printf -v isthmus_now '%(%s)T' -1
    if [ -z "$isthmus_lead" ]; then
      isthmus_lead=$(((isthmus_end - isthmus_now) / 2))
      [ "$isthmus_lead" -lt "$isthmus_term_lead" ] || isthmus_lead=$isthmus_term_lead
    fi
    [ $((isthmus_end - isthmus_lead)) -gt "$isthmus_now" ] || break
    pause $((isthmus_end - isthmus_lead - isthmus_now))
  done
  say "the job ends in $((isthmus_end - isthmus_now)) s"
  kill -TERM "$$"
}
