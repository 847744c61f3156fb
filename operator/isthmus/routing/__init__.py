"""Membership: which worker addresses stand in the EndpointSlices of a deployment."""
