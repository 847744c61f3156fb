"""Pure decisions: desired state, observations and time in; a plan out. No I/O, no clock."""
