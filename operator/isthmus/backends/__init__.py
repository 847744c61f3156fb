"""The two schedulers, each behind the records of backends.base."""
