"""The tunnel supervisor: a process of its own that holds forwards and publishes their slices."""
