"""What the operator tells about itself beside statuses: Kubernetes events."""
