"""The Kubernetes backend: what a pool's Deployment looks like and what its pods say."""
