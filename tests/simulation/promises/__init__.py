"""What is promised, a file for each subject, each with its own excuses.

An excuse says what a happening allows, as narrow as possible and with its reason: one that covers
more hides faults. `ledger` is what several of them keep in mind; the oracle joins them all.
"""
