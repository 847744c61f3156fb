"""The OpenSSH client as a part: options, key files, masters. Used for commands and for tunnels."""
