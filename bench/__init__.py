"""Measurements of Isthmus against raw commands, in the same run on the same playground.

Absolute times say more about the machine than about the operator; a ratio of two medians of one
run travels. Nothing is asserted here: a table is printed, and written only where asked.
"""
