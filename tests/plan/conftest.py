"""How the properties of this layer run: no time limit per example, which a busy machine breaks."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("plan", deadline=None, print_blob=True)
settings.load_profile("plan")
