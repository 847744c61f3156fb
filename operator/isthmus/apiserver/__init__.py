"""The edge towards the API server: one protocol, one client, typed errors."""
