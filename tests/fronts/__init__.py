"""Real fronts and simulated engines on loopback, for contract tests of what stands between them."""
