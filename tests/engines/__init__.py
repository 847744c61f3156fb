"""Real engines under Isthmus: `make engines`, no part of `make test`.

Apart from tests/real, because it fetches some GB, takes most of an hour and must be resumable: real
vLLM and SGLang on processors serve a tiny model as jobs and as pods of the playground, and each row
of the table in docs/engines.md is one thing that was seen to hold. The simulated engines of the
other tests behave as what is seen here.
"""
