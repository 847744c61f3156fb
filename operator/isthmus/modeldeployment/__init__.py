"""The kind ModelDeployment: how many workers of which revision on which pool."""
