"""The sidecar of the front: follows the EndpointSlices of one Service, configures and drains Envoy.

It imports neither kopf nor the Kubernetes client, which would take more memory than Envoy itself.
"""
